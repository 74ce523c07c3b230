"""Weights that are kept as integers, and the two operations of a network that computes with them.

They are operators of their own, so that an exported program shows them where an integer runtime has kernels for them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from zerosum.players.quantization.grids import Grid, round_to_levels
from zerosum.players.quantization.layers import weight_quantizer
from zerosum.players.quantization.precision import FULL_PRECISION, Layer
from zerosum.players.quantization.quantizers import LayerWeight, WeightQuantizer


@torch.library.custom_op("zerosum::dequantize", mutates_args=())
def dequantize(levels: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``scale * (levels - zero_point)`` in the dtype of ``scale``, of uint8 ``levels``; they broadcast."""
    return (scale * (levels.float() - zero_point.float())).to(scale.dtype)


@dequantize.register_fake
def _(levels: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.empty_like(levels, dtype=scale.dtype)


@torch.library.custom_op("zerosum::round_to_grid", mutates_args=())
def round_to_grid(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """``x`` at the nearest of the levels ``scale * (k - zero_point)``, ``k`` in 0 … 2^bits - 1."""
    return round_to_levels(x, scale, zero_point, bits)


@round_to_grid.register_fake
def _(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    return torch.empty_like(x)


class Integers(NamedTuple):
    """A weight: uint8 ``levels`` of 0 … 2^bits - 1, output channels on an axis of their own; float32 ``scale`` and
    uint8 ``zero_point``, which broadcast against them."""

    levels: Tensor
    scale: Tensor
    zero_point: Tensor


class IntegerWeight(LayerWeight):
    """Parametrization of a layer whose weight is kept as integers: its float values are computed when they are used."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, layer: Layer, integers: Integers, bits: int) -> None:
        super().__init__()
        self.bits, self.shape = bits, integers.levels.shape
        self._flat = layer.weight.shape
        self._inputs = (getattr(layer, "input_quantizer", None),)
        self.register_buffer("scale", integers.scale)
        self.register_buffer("zero_point", integers.zero_point)

    def grid_of(self, weight: Tensor) -> Grid:
        return Grid(self.scale.flatten(), self.zero_point.int().flatten(), self.bits)

    def rounded(self, weight: Tensor) -> Tensor:
        weight = self.values(weight)
        return weight if self.shape == self._flat else weight.reshape(self._flat)

    def values(self, levels: Tensor) -> Tensor:
        """What levels stand for, in their shape."""
        return dequantize(levels, self.scale, self.zero_point)


def keep_integers(layer: Any, integers: Integers, bits: int) -> None:
    """Let a convolution or linear layer compute with this weight, in place of the one that it has."""
    keep_levels(layer, integers.levels, IntegerWeight(layer, integers, bits))


def keep_levels(layer: Any, levels: Tensor, quantizer: IntegerWeight) -> None:
    """Let a layer keep levels in place of its weight, whose values are computed by ``quantizer``."""
    if parametrize.is_parametrized(layer, "weight"):
        # Not removed first: the class that makes it a property is shared with the network that this is a copy of.
        kept = layer.parametrizations.weight
        del kept.original
        kept.register_buffer("original", levels)
        kept[0] = quantizer
    else:
        del layer.weight
        layer.register_buffer("weight", levels)
        parametrize.register_parametrization(layer, "weight", quantizer, unsafe=True)  # which may change the dtype


@torch.no_grad()
def integers_of(layer: Layer) -> Integers | None:
    """The weight of a quantized layer; None where it is left in full precision."""
    quantizer = weight_quantizer(layer)
    if quantizer is None or quantizer.bits == FULL_PRECISION:
        return None
    kept: Tensor = layer.parametrizations.weight.original  # type: ignore
    if isinstance(quantizer, IntegerWeight):
        return Integers(kept, quantizer.scale, quantizer.zero_point)
    assert isinstance(quantizer, WeightQuantizer)
    rounded = quantizer.rounded(kept).reshape(quantizer.shape)
    scale, zero_point, _ = quantizer.grid_of(kept).beside(rounded, quantizer.channel_axis)
    levels = torch.round(rounded / scale) + zero_point
    return Integers(levels.to(torch.uint8), scale, zero_point.to(torch.uint8))
