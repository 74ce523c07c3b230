"""Simultaneous gradient play."""

from collections.abc import Sequence
from typing import Any

from zerosum.dynamics.base import Dynamics, Round, evaluate
from zerosum.game import Game
from zerosum.player import Player


class Simultaneous(Dynamics):
    """Both players step from the same point, on one play, each network forward once.

    ``w' = w - η F(w)``: gradient descent-ascent, the published AdaSG loop. It converges in strongly
    convex-strongly concave games for small η (κ² rounds in general), and spirals out of a bilinear one, where
    ``|w'| = √(1 + η²) |w|``.
    """

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        here = evaluate(game, movers, game.sample())
        for player in movers:
            player.step(here.gradients[player])
        return here.round
