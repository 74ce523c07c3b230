"""Terms on the statistics that a network's normalisation layers have seen."""

from collections.abc import Sequence

import torch
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
    # All layers in one row, each channel with its weight in the mean over its layer and over layers: few operations.
    means, variances, running_means, running_variances = (
        torch.cat(moments) for moments in (*zip(*batch_stats, strict=True), *zip(*running_stats, strict=True))
    )
    weights = torch.cat([mean.new_full(mean.shape, 1 / (len(mean) * len(batch_stats))) for mean, _ in batch_stats])
    return (weights * ((means - running_means).square() + (variances - running_variances).square())).sum()
