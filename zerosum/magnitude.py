"""How large the values of tensors are."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SMALL = 2**14  # values


def largest_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Greatest magnitude among all their values, a scalar on their device; NaN where one is, 0 of no tensors."""
    parts = [tensor for tensor in tensors if tensor.numel() > _SMALL]
    if small := [tensor.flatten() for tensor in tensors if 0 < tensor.numel() <= _SMALL]:
        parts.append(torch.cat(small) if len(small) > 1 else small[0])  # one operation for many
    norms = [torch.linalg.vector_norm(part, math.inf) for part in parts]
    if len(norms) == 1:
        return norms[0]
    return torch.stack(norms).max() if norms else torch.zeros(())
