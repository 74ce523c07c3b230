"""Play in which rounds go to whoever lags."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zerosum import ranks
from zerosum.dynamics.base import Dynamics, Round
from zerosum.dynamics.simultaneous import Simultaneous
from zerosum.game import Game
from zerosum.player import Player

if TYPE_CHECKING:
    from zerosum.criteria import BalanceGap


class Balanced(Dynamics):
    """Whoever lags by the guide's newest reading moves alone, until it is asked again; else both, by ``inner``.

    With the Balance Gap as the guide that is the minimizer while the maximizer runs ahead, and the other way round. In
    the rounds in which the guide is asked, ``guide.every`` of them, both move. Of a stretch that was given away there
    is nothing to read, so both move in the one after it, and a player has at most about half of all rounds to itself.
    A schedule goes on with its own player's steps; an average takes up every round, moved in or not.

    Args:
        guide: the criterion of the same match, which has its state; of it are used ``every``, ``lagging`` (a side, or
            None) and ``interrupt()``, called in each round that is given away.
        inner: the rule by which they move.
    """

    def __init__(self, guide: "BalanceGap", inner: Dynamics | None = None) -> None:
        self.guide, self.inner = guide, inner or Simultaneous()
        self.parts = {"inner": self.inner}

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        side = ranks.agreed(self.guide.lagging)
        lagging = [player for player in movers if player.side == side]
        if game.round % self.guide.every and lagging:
            self.guide.interrupt()
            movers = lagging
        return self.inner.step(game, movers)
