"""Symplectic gradient adjustment."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zerosum.dynamics.base import Dynamics, Round
from zerosum.dynamics.field import Field
from zerosum.game import Game
from zerosum.player import Player

_EPSILON = 0.1  # of the paper's algorithm 1: in doubt, towards the field's own rotation


class SymplecticGradientAdjustment(Dynamics):
    """The part of the Jacobian that rotates is turned against itself (Balduzzi et al., ICML 2018, algorithm 1).

    ``w' = w - η (F + λ Aᵀ F)``, with ``A = ½ (J - Jᵀ)`` the antisymmetric part of the Jacobian of F. With ``align`` the
    sign of λ is that of ``⟨F, Jᵀ F⟩ ⟨Aᵀ F, Jᵀ F⟩ / d + 0.1``, d the number of parameters, which draws to stable fixed
    points and away from unstable ones. One play a round, and three passes backward more. The optimizer takes the
    adjusted field for its gradient.

    Args:
        adjustment: λ, at least 0, in units of a step size: about 1 / |J|.

    Raises:
        ValueError: ``adjustment`` is negative.
    """

    def __init__(self, adjustment: float = 1.0, align: bool = True) -> None:
        if adjustment < 0:
            raise ValueError(f"symplectic gradient adjustment: lambda is at least 0; got {adjustment}")
        self.adjustment, self.align = adjustment, align

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        field = Field(game, movers, game.sample())
        value = field.value
        descent = field.transposed_product(value)  # ∇½|F|²
        rotation = [(t - j) / 2 for t, j in zip(descent, field.product(value), strict=True)]
        if self.align:
            size = sum(g.numel() for g in value)
            aligned = _dot(value, descent) * _dot(rotation, descent) / size + _EPSILON >= 0
            rotation = [torch.where(aligned, r, -r) for r in rotation]
        field.step([g + self.adjustment * r for g, r in zip(value, rotation, strict=True)])
        return field.evaluation.round


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
