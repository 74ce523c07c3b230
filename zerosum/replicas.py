"""Players that are the same on every rank (:mod:`zerosum.ranks`)."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from zerosum import ranks
from zerosum.player import Player
from zerosum.randomness import random_state, set_random_state

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # as SyncBatchNorm wants CUDA


@torch.no_grad()
def begin_alike(players: Sequence[Player]) -> None:
    """Put players' modules, and the generators of random numbers, where the first rank's are, and let their BatchNorm
    layers see the batches of all ranks.

    Raises:
        ValueError: a layer derived from BatchNorm is in training mode, whose own forward would be lost.
    """
    if ranks.count() == 1:
        return
    set_random_state(ranks.agreed(random_state()))
    everything = _modules(players)
    for tensor in (*everything.parameters(), *everything.buffers()):
        tensor.copy_(_from_first(tensor))
    for layer in everything.modules():
        if isinstance(layer, _PLAIN) and type(layer) in _PLAIN:
            layer.forward = partial(_normalize, layer)  # type: ignore[method-assign]
        elif isinstance(layer, _BatchNorm) and not isinstance(layer, SyncBatchNorm) and layer.training:
            raise ValueError(
                f"{type(layer).__name__} in training mode: its statistics cannot be taken over the batches of all "
                "ranks; expected BatchNorm1d, 2d or 3d, or SyncBatchNorm"
            )


def differ_by(players: Sequence[Player]) -> float:
    """The greatest distance of a parameter or a buffer on any rank from the first rank's."""
    if ranks.count() == 1:
        return 0.0
    everything, furthest = _modules(players), 0.0
    for tensor in (*everything.parameters(), *everything.buffers()):
        first = _from_first(tensor)
        if first.numel():
            furthest = max(furthest, (tensor.detach().double() - first.double()).abs().max().item())
    return max(ranks.gathered(furthest))


def _modules(players: Sequence[Player]) -> nn.ModuleList:
    """All of theirs, and the averages of them."""
    found = [module for player in players for module in (player.module, player.average) if module is not None]
    return nn.ModuleList(dict.fromkeys(found))


def _from_first(tensor: Tensor) -> Tensor:
    whole = tensor.detach().clone(memory_format=torch.contiguous_format)
    with ranks.exchange():
        dist.broadcast(whole, 0)
    return whole


def _normalize(layer: _BatchNorm, x: Tensor) -> Tensor:
    """As the layer itself, but for moments that are of all ranks' batches."""
    if not ranks.are_apart() or not (layer.training or layer.running_mean is None):
        normalized: Tensor = type(layer).forward(layer, x)
        return normalized
    axes, shape = [axis for axis in range(x.ndim) if axis != 1], (-1, *[1] * (x.ndim - 2))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, average = torch.var_mean(wide, axes, correction=0)
    ((average, variance),) = ranks.moments([(average, variance)])
    if layer.running_mean is not None and layer.running_var is not None:
        with torch.no_grad():
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked.add_(1)
            weight = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
            values = ranks.count() * x.numel() / x.shape[1]
            layer.running_mean.lerp_(average.to(layer.running_mean), weight)
            layer.running_var.lerp_((variance * values / (values - 1)).to(layer.running_var), weight)
    scale = (variance + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    normalized = (wide - average.view(shape)) * scale.view(shape)
    return (normalized if layer.bias is None else normalized + layer.bias.view(shape)).to(x.dtype)
