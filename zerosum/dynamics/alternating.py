"""Alternating gradient play."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zerosum.dynamics.base import Dynamics, Round, evaluate
from zerosum.game import Game
from zerosum.player import Player


class Alternating(Dynamics):
    """First the maximizer takes ``max_steps`` steps, then the minimizer ``min_steps``, each on a fresh play.

    ``x' = x + η ∇x f(x, y)``, ``y' = y - η ∇y f(x', y)`` (with one step each). On ``f = x·y`` it circles:
    ``|x|² + |y|² + η x·y`` is conserved (the maximizer moves first; where the minimizer does, the last sign turns).

    Raises:
        ValueError: a number of steps below 1.
    """

    def __init__(self, max_steps: int = 1, min_steps: int = 1) -> None:
        if max_steps < 1 or min_steps < 1:
            raise ValueError(f"each player takes at least one step; got {max_steps} and {min_steps}")
        self.max_steps, self.min_steps = max_steps, min_steps

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        losses: dict[str, dict[str, Tensor]] = {}
        for player in movers:
            for _ in range(self.max_steps if player.side == "maximize" else self.min_steps):
                here = evaluate(game, [player], game.sample())
                player.step(here.gradients[player])
            losses |= here.round.losses
        return Round(here.round.payoff, losses)
