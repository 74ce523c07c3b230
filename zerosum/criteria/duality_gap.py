"""The duality gap, by best responses."""

from typing import Any

from zerosum.criterion import Criterion, Verdict, check_settings, judge
from zerosum.game import Game
from zerosum.player import Player
from zerosum.randomness import kept_random_state
from zerosum.response import BestResponse, Response


class DualityGap(Criterion):
    """What the players could still win, together, by best responses to each other: zero at equilibria alone.

    ``max_x' f(x', y) - min_y' f(x, y')``. It is measured as what each player's best response takes off its own loss,
    added up, which is the same where nobody has a surrogate or terms, and else the Nikaido-Isoda function of that game
    (Nikaido and Isoda 1955). A player that finds nothing better keeps its place, so the gap is at least 0.

    The best responses are those of copies: parameters, buffers and random numbers are put back as they were. With an
    inner optimization the gap is a lower bound, exact where it converges (a convex-concave game, enough steps). Where
    the payoff is unbounded in a player's parameters, so is the gap: give the players a projection.

    Args:
        respond: puts a player of the game at its best response to the other, who stays: an inner optimization, or a
            closed form that writes into the player's module.
        probe: the sample at which losses are compared; None for a deterministic game. An inner optimization draws its
            own samples of the game.
        every: rounds from one reading to the next.
        tolerance: the game is stationary at a gap up to this, in units of the payoff.

    Raises:
        ValueError: ``every`` below 1, or a negative tolerance.
    """

    def __init__(
        self,
        respond: Response | None = None,
        probe: Any = None,
        every: int = 100,
        tolerance: float = 1e-3,
    ) -> None:
        check_settings(every, tolerance)
        self.respond = respond or BestResponse()
        self.probe, self.every, self.tolerance = probe, every, tolerance

    def after(self, game: Game[Any]) -> Verdict:
        with kept_random_state():
            gap = sum(self._won(game, player) for player in game.players)
        return judge("duality_gap", gap, self.tolerance, "duality gap")

    def _won(self, game: Game[Any], player: Player) -> float:
        """How much lower the player's loss is at its best response."""
        start, before = player.values(), self._loss(game, player)
        with game.keeping_buffers():
            try:
                self.respond(game, player)
                return max(0.0, before - self._loss(game, player))
            finally:
                player.place(start)

    def _loss(self, game: Game[Any], player: Player) -> float:
        with game.undisturbed():
            play = game.play(self.probe)
            return sum(loss.item() for loss in player.losses(play, game.payoff_of(play)).values())
