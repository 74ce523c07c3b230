"""Play in which one player answers with a best response."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zerosum import ranks
from zerosum.dynamics.base import Dynamics, Round, over_ranks
from zerosum.dynamics.simultaneous import Simultaneous
from zerosum.game import Game
from zerosum.player import Player, Side
from zerosum.transforms import Remembering


class Responding(Dynamics):
    """One player moves by ``inner``, and every ``every`` rounds the other is put at its best response.

    With y the one who answers: ``x' = inner(x, y)``, ``y' = argmin_y f(x', y)``. Where y answers exactly in each round
    and x moves by gradient steps, x descends the function ``max`` or ``min`` over y of f (Danskin 1967), and the game
    is one of a leader and a follower (Stackelberg). The optimizer, the schedule and the transform of y are not used.

    Args:
        respond: ``respond(game, player)`` (:class:`zerosum.BestResponse`, or a closed form);
            one with a memory (``state_dict``, ``load_state_dict``) has it in checkpoints.
        side: of the player that answers.
        every: rounds from one answer to the next.
        inner: the rule by which the other moves.

    Raises:
        ValueError: ``every`` below 1.
    """

    def __init__(
        self,
        respond: Callable[[Game[Any], Player], None],
        side: Side = "minimize",
        every: int = 1,
        inner: Dynamics | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"responding: every is at least 1; got {every}")
        self.respond, self.side, self.every = respond, side, every
        self.inner = inner or Simultaneous()
        self.parts = {"inner": self.inner}
        self._rounds = 0

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        others = [player for player in movers if player.side != self.side]
        moved = self.inner.step(game, others) if others else None
        self._rounds += 1
        if self._rounds % self.every == 0:
            for player in movers:
                if player.side == self.side:
                    with ranks.alike():
                        self.respond(game, player)
        return moved or self._look(game, movers)

    @staticmethod
    def _look(game: Game[Any], movers: Sequence[Player]) -> Round:
        with game.undisturbed():
            play = game.play(game.sample())
            payoff = game.payoff_of(play)
            payoff, losses = over_ranks(payoff, {player: player.losses(play, payoff) for player in movers})
            return Round(payoff, {player.name: terms for player, terms in losses.items()})

    def state_dict(self) -> dict[str, Any]:
        remembered: Mapping[str, Any] = self.respond.state_dict() if isinstance(self.respond, Remembering) else {}
        return super().state_dict() | {"rounds": self._rounds, "respond": remembered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._rounds = state["rounds"]
        if isinstance(self.respond, Remembering):
            self.respond.load_state_dict(state["respond"])
