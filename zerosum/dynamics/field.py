"""The game's vector field F and products with its Jacobian J, which is never formed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zerosum import ranks
from zerosum.dynamics.base import Evaluation, evaluate
from zerosum.game import Game
from zerosum.player import Player


class Field:
    """F at one play: the movers' gradients, laid end to end, of their own losses.

    Every operation in ``play`` and in the losses has to be twice differentiable. Products are lists of tensors, one a
    parameter, zeros where nothing is reached.
    """

    def __init__(self, game: Game[Any], movers: Sequence[Player], sample: Any) -> None:
        self.movers = movers
        self.evaluation: Evaluation = evaluate(game, movers, sample, create_graph=True)
        self.parameters: list[nn.Parameter] = [p for player in movers for p in player.parameters()]
        gradients = [g for player in movers for g in self.evaluation.gradients[player]]
        self._value = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        self._curved = [i for i, g in enumerate(self._value) if g.requires_grad]

    @property
    def value(self) -> list[Tensor]:
        """F itself."""
        return [g.detach() for g in self._value]

    def transposed_product(self, vector: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
        """``Jᵀ v``, by one more pass backward."""
        if not self._curved:
            return [torch.zeros_like(p) for p in self.parameters]
        return self._whole(
            torch.autograd.grad(
                [self._value[i] for i in self._curved],
                self.parameters,
                [vector[i] for i in self._curved],
                retain_graph=True,
                create_graph=create_graph,
                materialize_grads=True,
            )
        )

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``J v``, by two: ``Jᵀ u`` is linear in u, and its derivative along v is what is wanted."""
        probe = [torch.zeros_like(p, requires_grad=True) for p in self.parameters]
        rows = self.transposed_product(probe, create_graph=True)
        outputs = [(row, v) for row, v in zip(rows, vector, strict=True) if row.requires_grad]
        if not outputs:
            return [torch.zeros_like(p) for p in self.parameters]
        return self._whole(
            torch.autograd.grad(
                [row for row, _ in outputs],
                probe,
                [v for _, v in outputs],
                retain_graph=True,
                materialize_grads=True,
            )
        )

    @staticmethod
    def _whole(parts: Sequence[Tensor]) -> list[Tensor]:
        """Of all ranks: what autograd finds on each of them are parts of a derivative of F, which is their mean."""
        return ranks.means(parts)

    def step(self, direction: Sequence[Tensor]) -> None:
        """Every mover's optimizer steps along its part of ``direction``.

        A parameter that its player's loss does not reach is given no gradient, as in plain play.
        """
        rest = iter(direction)
        for player in self.movers:
            reached = self.evaluation.gradients[player]
            player.step([None if g is None else part for g, part in zip(reached, rest, strict=False)])
