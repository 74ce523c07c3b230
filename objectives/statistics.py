"""Terms on the statistics that a network's normalisation layers have seen."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Moments = tuple[Tensor, Tensor]


def bn_alignment(batch_stats: Sequence[Moments], running_stats: Sequence[Moments]) -> Tensor:
    """Scalar >= 0: how far a batch's statistics are from those that a network's BatchNorm layers remember.

    Mean over layers of ``MSE(batch mean, running mean) + MSE(batch variance, running variance)`` (AdaSG, and GDFQ
    before it, ECCV 2020). Both arguments hold a (mean, variance) pair, each (channels,), for every layer, in one order.

    Raises:
        ValueError: no layers, or unequal numbers of them.
    """
    if not batch_stats or len(batch_stats) != len(running_stats):
        raise ValueError(
            f"one (mean, variance) pair a layer on both sides, at least one layer; "
            f"got {len(batch_stats)} of the batch and {len(running_stats)} running"
        )
    distances = [
        F.mse_loss(mean, running_mean) + F.mse_loss(variance, running_variance)
        for (mean, variance), (running_mean, running_variance) in zip(batch_stats, running_stats, strict=True)
    ]
    return torch.stack(distances).mean()
