"""What enters a network's BatchNorm layers, as it was when the network was trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zerosum.players.arguments import input_of, with_input
from zerosum.players.statistics import batchnorm_layers

Change = tuple[Tensor, Tensor]
_LOOKED_AT = 96
_MOST = 4.0  # by which a channel is enlarged, or made smaller


class AlignedMoments:
    """What has every channel that enters a BatchNorm layer have the mean and the variance that the layer remembers.

    Synthetic images excite other channels than those that a network was trained on, some hardly at all. Each channel is
    shifted, and scaled by at most 4, before it enters, as some images need it, layer by layer from the input on.

    Args:
        network: in eval mode; one without BatchNorm layers is left as it is.
        images: (N, channels, height, width) in normalised input space, in random order; 96 are looked at.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        layers = batchnorm_layers(network)
        self._found: dict[nn.Module, Change] = {}
        handles = [layer.register_forward_pre_hook(self._find, with_kwargs=True) for layer in layers]
        try:
            with torch.no_grad():
                network(images[:_LOOKED_AT]) if layers else None
        finally:
            for handle in handles:
                handle.remove()
        self.changes = [self._found.get(layer) for layer in layers]

    def _find(self, layer: Any, args: Any, kwargs: Any) -> Any:
        x = input_of(layer, args, kwargs).float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        deviation = (x.var(axes, correction=0) + layer.eps).sqrt()
        gain = ((layer.running_var + layer.eps).sqrt() / deviation).clamp(1 / _MOST, _MOST)
        change = self._found.setdefault(layer, (gain, layer.running_mean - gain * x.mean(axes)))
        return _apply(*change)(layer, args, kwargs)

    @contextmanager
    def of(self, *networks: nn.Module) -> Iterator[None]:
        """Inside, the channels of these networks, the one looked at or copies of it, are changed: all alike, so that
        where they differ they differ as before."""
        handles = [
            layer.register_forward_pre_hook(_apply(*change), with_kwargs=True)
            for network in networks
            for layer, change in zip(batchnorm_layers(network), self.changes, strict=True)
            if change is not None  # it does not run
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _apply(gain: Tensor, shift: Tensor) -> Any:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = input_of(layer, args, kwargs)
        shape = (-1, *[1] * (x.ndim - 2))
        x = torch.addcmul(shift.to(x.dtype).view(shape), x, gain.to(x.dtype).view(shape))
        return with_input(layer, args, kwargs, x)

    return hook
