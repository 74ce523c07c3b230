"""BatchNorm layers that take what they are given for what they remember."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zerosum.players.arguments import input_of
from zerosum.players.statistics import batchnorm_layers, moments_of_channels

Moments = tuple[Tensor, Tensor]
_LOOKED_AT = 96
_MOST = 4.0  # by which a channel is enlarged, or made smaller


class AlignedMoments:
    """What has every channel that leaves a BatchNorm layer be as if one with the mean and the variance that the layer
    remembers had entered it.

    Synthetic images excite other channels than those that a network was trained on, some hardly at all. Each channel is
    shifted, and scaled by at most 4, as some images need it, layer by layer from the input on. That is what the layer
    itself does with other moments to remember, which it is given meanwhile: those of these images.

    Args:
        network: in eval mode; one without BatchNorm layers is left as it is.
        images: (N, channels, height, width) in normalised input space, in random order; 96 are looked at.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        layers = batchnorm_layers(network)
        self._found: dict[nn.Module, Moments] = {}
        handles = [layer.register_forward_pre_hook(self._find, with_kwargs=True) for layer in layers]
        try:
            with torch.no_grad(), _as_before(layers):
                network(images[:_LOOKED_AT]) if layers else None
        finally:
            for handle in handles:
                handle.remove()
        self.moments = [self._found.get(layer) for layer in layers]

    def _find(self, layer: Any, args: Any, kwargs: Any) -> None:
        if layer in self._found:  # it runs again
            return
        mean, variance = moments_of_channels(input_of(layer, args, kwargs))
        found, remembered = variance + layer.eps, layer.running_var + layer.eps
        gain = (remembered / found).sqrt().clamp(1 / _MOST, _MOST)
        self._found[layer] = mean, remembered / gain**2 - layer.eps
        _remember(layer, self._found[layer])

    @contextmanager
    def of(self, *networks: nn.Module) -> Iterator[None]:
        """Inside, the channels of these networks, the one looked at or copies of it, are changed: all alike, so that
        where they differ they differ as before."""
        layers = [batchnorm_layers(network) for network in networks]
        with _as_before([layer for of_one in layers for layer in of_one]):
            for of_one in layers:
                for layer, moments in zip(of_one, self.moments, strict=True):
                    if moments is not None:  # it runs
                        _remember(layer, moments)
            yield


@torch.no_grad()
def _remember(layer: Any, moments: Moments) -> None:
    for value, new in zip((layer.running_mean, layer.running_var), moments, strict=True):
        value.copy_(new)


@contextmanager
def _as_before(layers: Sequence[Any]) -> Iterator[None]:
    """Afterwards layers remember what they did."""
    kept = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]
    try:
        yield
    finally:
        for layer, moments in zip(layers, kept, strict=True):
            _remember(layer, moments)
