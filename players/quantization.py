"""Fake quantization: a network's weights and activations rounded to a few bits, in float arithmetic, differentiably.

A quantized copy keeps the architecture. Each Conv2d and Linear computes with its weight rounded to a per-channel grid
(a parametrization, so the trained weight stays in full precision underneath) and with its input rounded to a
per-tensor grid (a forward pre-hook). What feeds a layer is quantized at the layer, so no activation function has to be
known by name.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

FULL_PRECISION = 32
_QUANTIZABLE = (nn.Conv2d, nn.Linear)
_INPUT_BITS = 8  # images come in 8 bits


class Bits(NamedTuple):
    """Bits of weights and of activations, each 2 to 8, or 32 for full precision."""

    weight: int
    activation: int

    @classmethod
    def parse(cls, text: str) -> "Bits":
        """``"w4a8"`` → ``Bits(4, 8)``.

        Raises:
            ValueError: the text has another form, or a width is neither 2 to 8 nor 32.
        """
        match = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
        if match is None:
            raise ValueError(f"bits {text!r}: expected w<bits>a<bits>, for weights and activations, such as w4a4")
        bits = cls(int(match[1]), int(match[2]))
        for width in bits:
            _check_width(width, f"bits {text!r}")
        return bits


def _check_width(width: int, where: str) -> None:
    if not (2 <= width <= 8 or width == FULL_PRECISION):
        raise ValueError(f"{where}: {width} is neither 2 to 8 bits nor {FULL_PRECISION} (full precision)")


def fake_quantize(x: Tensor, low: Tensor, high: Tensor, bits: int, channel_axis: int | None = None) -> Tensor:
    """Round ``x`` to the 2^bits levels of an asymmetric grid over [low, high]; same shape and dtype.

    The range is widened to hold zero, and the zero point is an integer, so that zero is exact:
    ``scale = (high - low) / (2^bits - 1)``, ``zero_point = round(-low / scale)``,
    ``x' = scale * (clamp(round(x / scale) + zero_point, 0, 2^bits - 1) - zero_point)`` (Jacob et al., CVPR 2018).
    The gradient is straight-through inside the range and zero outside; none flows to the range.

    Args:
        low, high: range in the units of ``x``; one element, or (channels,) where ``channel_axis`` says which axis of
            ``x`` they belong to.
        bits: 2 to 8.

    Raises:
        ValueError: ``bits`` out of range.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"fake quantization to {bits} bits: expected 2 to 8")
    levels = 2**bits - 1
    scale, zero_point = _grid(low, high, levels)
    if channel_axis is None:
        return torch.fake_quantize_per_tensor_affine(x, scale.reshape(()), zero_point.reshape(()), 0, levels)
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, channel_axis, 0, levels)


def _grid(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    low = low.detach().float().clamp(max=0)
    span = high.detach().float().clamp(min=0) - low
    scale = torch.where(span > 0, span / levels, torch.ones_like(span))
    zero_point = torch.round(-low / scale).clamp(0, levels).to(torch.int32)
    return scale, zero_point


class WeightQuantizer(nn.Module):
    """Parametrization of a weight (out, ...): its current values on a per-channel grid over their own min and max."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        low, high = weight.detach().flatten(1).aminmax(dim=1)
        return fake_quantize(weight, low, high, self.bits, channel_axis=0)


class ActivationQuantizer(nn.Module):
    """What enters a layer, on a per-tensor grid over a range that was observed on batches and then kept.

    The range is the moving average (momentum 0.9) of batch minima and maxima, corrected for its start from zero, so
    the first batch already gives its own range. Before any observation the input passes unchanged.
    """

    low: Tensor
    high: Tensor
    momentum = 0.9

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.observing = False
        self.observed = 0
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def reset(self) -> None:
        """Forget the range."""
        self.observed = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self._observe(x.detach())
        if not self.observed:
            return x
        return fake_quantize(x, self.low, self.high, self.bits)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.observed = int((self.high > self.low).item())

    def _observe(self, x: Tensor) -> None:
        self.observed += 1
        # Weight of the newest batch in a bias-corrected average: (1 - m) / (1 - m^t); 1 for the first.
        newest = (1 - self.momentum) / (1 - self.momentum**self.observed)
        low, high = x.aminmax()
        self.low.lerp_(low.to(self.low.dtype), newest)
        self.high.lerp_(high.to(self.high.dtype), newest)


def _quantize_input(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (layer.input_quantizer(args[0]), *args[1:])  # type: ignore[operator]


def quantize(network: nn.Module, weight_bits: int, activation_bits: int) -> nn.Module:
    """A quantized copy of ``network``: every Conv2d and Linear, weights per output channel, inputs per tensor.

    Activation ranges come from :func:`calibrate`. The input of the first layer is the network's own input and is kept
    at 8 bits or more. The network itself stays as it was; the copy's state dict holds the full-precision weights (under
    ``parametrizations.weight.original``) and the ranges (``input_quantizer.low``, ``.high``), and loads into another
    copy made with the same bits.

    Args:
        weight_bits, activation_bits: 2 to 8, or 32 to leave weights or activations in full precision.

    Raises:
        ValueError: bits out of range, or a network with no Conv2d or Linear.
    """
    _check_width(weight_bits, "weight bits")
    _check_width(activation_bits, "activation bits")
    quantized = copy.deepcopy(network)
    layers = [module for module in quantized.modules() if isinstance(module, _QUANTIZABLE)]
    if not layers:
        raise ValueError(f"nothing to quantize: {type(network).__name__} has no Conv2d and no Linear")
    for index, layer in enumerate(layers):
        if weight_bits < FULL_PRECISION:
            parametrize.register_parametrization(layer, "weight", WeightQuantizer(weight_bits))
        if activation_bits < FULL_PRECISION:
            bits = max(activation_bits, _INPUT_BITS) if index == 0 else activation_bits
            layer.input_quantizer = ActivationQuantizer(bits).to(layer.weight.device)
            layer.register_forward_pre_hook(_quantize_input)
    return quantized


def _activation_quantizers(network: nn.Module) -> Iterator[ActivationQuantizer]:
    return (module for module in network.modules() if isinstance(module, ActivationQuantizer))


@torch.no_grad()
def calibrate(quantized: nn.Module, batches: Iterable[Tensor]) -> None:
    """Observe activation ranges afresh on batches of images (N, channels, height, width), then keep them."""
    for quantizer in _activation_quantizers(quantized):
        quantizer.reset()
        quantizer.observing = True
    try:
        for images in batches:
            quantized(images)
    finally:
        for quantizer in _activation_quantizers(quantized):
            quantizer.observing = False
