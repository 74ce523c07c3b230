"""Consensus optimization."""

from collections.abc import Sequence
from typing import Any

from zerosum.dynamics.base import Dynamics, Round
from zerosum.dynamics.field import Field
from zerosum.game import Game
from zerosum.player import Player


class ConsensusOptimization(Dynamics):
    """Both players also lower the length of the vector field (Mescheder et al., NeurIPS 2017).

    ``w' = w - η (F(w) + γ ∇½|F(w)|²) = w - η (F(w) + γ Jᵀ F(w))``, with J the Jacobian of F. One play a round, and one
    pass backward more. The optimizer takes the sum for its gradient, as the paper does with RMSProp. What the players
    agree on includes bad stationary points: a large γ draws towards any of them.

    Args:
        gamma: weight of the consensus, at least 0, in units of a step size: about 1 / |J|.

    Raises:
        ValueError: ``gamma`` is negative.
    """

    def __init__(self, gamma: float = 1.0) -> None:
        if gamma < 0:
            raise ValueError(f"consensus optimization: gamma is at least 0; got {gamma}")
        self.gamma = gamma

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        field = Field(game, movers, game.sample())
        value = field.value
        consensus = field.transposed_product(value)
        field.step([g + self.gamma * c for g, c in zip(value, consensus, strict=True)])
        return field.evaluation.round
