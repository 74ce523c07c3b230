"""What a player's optimizers are given in place of its gradients: for ``Player.transform``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

Gradients: TypeAlias = Sequence[Tensor | None]
"""One a parameter; None where the loss does not reach it."""
Transform: TypeAlias = Callable[[Gradients], Gradients | None]
"""Of a player's gradients what its optimizers are given; None where they are to wait."""


@runtime_checkable
class Remembering(Protocol):
    """Something with a memory, which goes into checkpoints: a transform, or a best response."""

    def state_dict(self) -> dict[str, Any]:
        """It, as plain containers of tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""


def clip_norm(most: float) -> Transform:
    """Scaled down, all alike, where their Euclidean norm together is above ``most`` (Pascanu et al., ICML 2013).

    Raises:
        ValueError: ``most`` is not above 0.
    """
    if not most > 0:
        raise ValueError(f"clip_norm: expected a norm above 0; got {most}")

    def clip(gradients: Gradients) -> Gradients:
        reached = [gradient for gradient in gradients if gradient is not None]
        # In float32 at least: a sum of squares overflows float16 soon.
        norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in reached]
        if not norms:
            return gradients
        factor = (most / torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))).clamp(max=1)
        return [None if gradient is None else gradient * factor.to(gradient) for gradient in gradients]

    return clip


class Accumulate:
    """The mean of every ``count`` gradients; the optimizers wait in between. Where one did not reach a parameter, it
    counts as 0. For rules of play that evaluate once a round.

    Raises:
        ValueError: ``count`` below 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"Accumulate: expected at least 1 gradient; got {count}")
        self.count = count
        self._sums: list[Tensor | None] = []
        self._taken = 0

    def __call__(self, gradients: Gradients) -> Gradients | None:
        sums = self._sums or [None] * len(gradients)
        self._sums = [
            a if b is None else b.detach().clone() if a is None else a.to(b) + b
            for a, b in zip(sums, gradients, strict=True)
        ]
        self._taken += 1
        if self._taken < self.count:
            return None
        mean = [None if total is None else total / self.count for total in self._sums]
        self._sums, self._taken = [], 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """The gradients taken so far."""
        return {"sums": list(self._sums), "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self._sums, self._taken = list(state["sums"]), state["taken"]
