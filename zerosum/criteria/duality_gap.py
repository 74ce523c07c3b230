"""The duality gap, by best responses."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum.criteria.base import Criterion, Verdict, check_settings, judge
from zerosum.dynamics import Simultaneous
from zerosum.game import Game
from zerosum.match import Match
from zerosum.player import Player
from zerosum.randomness import kept_random_state


class BestResponse:
    """The best response found by an optimization of ``steps`` steps, from where the player stands.

    The player alone moves, along the gradient of its own loss, with a fresh optimizer whose step size falls to 0 along
    a cosine; the projection is its own.

    Args:
        steps: the budget.
        optimizer: makes the optimizer of a list of parameters.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(
        self, steps: int = 200, optimizer: Callable[[Iterable[Tensor]], Optimizer] = lambda p: Adam(p, lr=0.05)
    ) -> None:
        if steps < 1:
            raise ValueError(f"a best response takes at least one step; got {steps}")
        self.steps, self.optimizer = steps, optimizer

    def __call__(self, game: Game[Any], player: Player) -> None:
        optimizer = self.optimizer(player.parameters())
        responding = dataclasses.replace(
            player,
            optimizer=optimizer,
            schedule=CosineAnnealingLR(optimizer, self.steps),
            sits_out=(),
            on_entry=None,
            average=None,
        )
        waiting = dataclasses.replace(game.opponent(player), sits_out=range(self.steps), on_entry=None)
        up, down = (responding, waiting) if player is game.maximizer else (waiting, responding)
        Match(dataclasses.replace(game, maximizer=up, minimizer=down), Simultaneous(), self.steps).play()


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
        respond: Callable[[Game[Any], Player], None] | None = None,
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
            return sum(loss.item() for loss in player.losses(play, game.payoff(play)).values())
