"""What belongs to the whole batch, of which each rank has its share; to be differentiated."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zerosum.ranks.group import count, exchange
from zerosum.ranks.rounds import are_apart


def mean(x: Tensor) -> Tensor:
    """Over the ranks, while they are apart; it can be differentiated, any number of times."""
    if not are_apart():
        return x
    found: Tensor = _Mean.apply(x)
    return found


class _Mean(torch.autograd.Function):
    """It is its own transpose: what comes back to a rank is the mean of what came back to all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        with exchange():
            dist.all_reduce(total)
        return total / count()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found: Tensor = _Mean.apply(gradient)
        return found


def means(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each one's :func:`mean`, of all in one exchange."""
    found = list(tensors)
    if not are_apart():
        return found
    for dtype in dict.fromkeys(x.dtype for x in tensors):  # in one order on all ranks
        places = [i for i, x in enumerate(tensors) if x.dtype == dtype]
        parts = [tensors[i] for i in places]
        together = mean(torch.cat([x.reshape(-1) for x in parts]))
        for place, part, x in zip(places, torch.split(together, [x.numel() for x in parts]), parts, strict=True):
            found[place] = part.view(x.shape)
    return found


def gradient_means(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Each one's :func:`mean`, of all in one exchange; one that a rank does not have is 0 there, and one that no rank
    has is None."""
    if not are_apart():
        return list(gradients)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    there = filled[0].new_tensor([g is not None for g in gradients])
    *found, reached = means([*filled, there])
    return [g if holders else None for g, holders in zip(found, reached.tolist(), strict=True)]


def moments(here: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Means and biased variances of all ranks' batches, of those of this rank's, of any number of layers in one
    exchange; differentiable."""
    if not are_apart():
        return list(here)
    wide = [(mean.double(), variance.double()) for mean, variance in here]  # for small variances of large means
    whole = means([x for mean, variance in wide for x in (mean, variance + mean.square())])
    pairs = zip(whole[::2], whole[1::2], strict=True)
    return [(m.to(own), (square - m.square()).to(own)) for (m, square), (own, _) in zip(pairs, here, strict=True)]


def least(values: Tensor) -> Tensor:
    """The least of (N,) values of all ranks; differentiable."""
    here = values.min()
    if not are_apart():
        return here
    lowest = here.detach().clone()
    with exchange():
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
    mine = here.detach() == lowest
    there, holders = mean(torch.stack([torch.where(mine, here, 0), mine.to(here)]))
    return there / holders
