"""The length of the vector field."""

import math
from typing import Any

import torch
from torch import Tensor

from zerosum.criterion import Criterion, Verdict, check_settings, judge
from zerosum.dynamics import evaluate
from zerosum.game import Game
from zerosum.player import Player


class GradientNorm(Criterion):
    """Euclidean norm of both players' gradients of their own losses, where the players stand: zero at a fixed point.

    That is where every rule of :mod:`zerosum.dynamics` rests with SGD, and necessary for an equilibrium, not
    sufficient. Of a player with a projection Π it takes the natural residual ``w - Π(w - g)`` in place of the gradient
    g, which vanishes where g only points out of the allowed set (Facchinei and Pang 2003, section 1.5). Strategies that
    move by multiplicative weights come to no such point at the simplex' border: take :class:`Exploitability` there.

    Args:
        probe: a sample, as ``game.sample()`` draws them; None for a deterministic game.
        every: rounds from one reading to the next.
        tolerance: the game is stationary at a norm up to this, in units of payoff a unit of parameter.

    Raises:
        ValueError: ``every`` below 1, or a negative tolerance.
    """

    def __init__(self, probe: Any = None, every: int = 1, tolerance: float = 1e-6) -> None:
        check_settings(every, tolerance)
        self.probe, self.every, self.tolerance = probe, every, tolerance

    def after(self, game: Game[Any]) -> Verdict:
        with game.keeping_buffers():
            here = evaluate(game, game.players, self.probe)
        squares = [
            _residual(player, p, g).square().sum().item()
            for player in game.players
            for p, g in zip(player.parameters(), here.gradients[player], strict=True)
            if g is not None
        ]
        return judge("gradient_norm", math.sqrt(sum(squares)), self.tolerance, "gradient norm")


@torch.no_grad()
def _residual(player: Player, p: Tensor, gradient: Tensor) -> Tensor:
    return gradient if player.projection is None else p - player.projection(p - gradient)
