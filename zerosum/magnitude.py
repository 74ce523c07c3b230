"""How large the values of tensors are."""

from collections.abc import Sequence

import torch
from torch import Tensor

_SMALL = 2**14  # values


def largest_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    """Greatest magnitude among all their values, a scalar on their device; NaN where one is, 0 of no tensors."""
    parts = [tensor for tensor in tensors if tensor.numel() > _SMALL]
    if small := [tensor.flatten() for tensor in tensors if 0 < tensor.numel() <= _SMALL]:
        parts.append(torch.cat(small) if len(small) > 1 else small[0])  # one operation for many
    largest = [part.abs().amax() for part in parts]  # eight times as fast as vector_norm(part, inf) on the CPU
    if len(largest) == 1:
        return largest[0]
    return torch.stack(largest).max() if largest else torch.zeros(())
