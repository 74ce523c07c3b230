"""Fake quantization: a network's weights and activations rounded to a few bits, in float arithmetic, differentiably.

A quantized copy keeps the architecture. Each convolution and linear layer, of any subclass, computes with its weight
rounded to a per-channel grid (a parametrization, so the trained weight stays in full precision underneath) and with its
input rounded to a per-tensor grid (a forward pre-hook). What feeds a layer is quantized at the layer, so no activation
function has to be known by name. Where another module takes the layer's weight and computes with it (fused attention
projections), the weight brings the quantizer of its input along.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

FULL_PRECISION = 32
_QUANTIZABLE = (_ConvNd, nn.Linear)
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
    """Parametrization of a weight: its current values on a per-channel grid over their own min and max.

    Args:
        bits: 2 to 8, or 32 to leave the values as they are.
        channel_axis: of the output channels: 1 for transposed convolutions, else 0.
        inputs: quantizer of what the layer is given, for modules that take the weight and compute with it themselves.
    """

    def __init__(self, bits: int, channel_axis: int = 0, inputs: "ActivationQuantizer | None" = None) -> None:
        super().__init__()
        self.bits, self.channel_axis = bits, channel_axis
        self.in_layer = False  # the layer's own forward is running, which has quantized its input
        self._inputs = (inputs,)  # in a tuple, because the layer owns the module

    def forward(self, weight: Tensor) -> Tensor:
        if self.bits < FULL_PRECISION:
            low, high = weight.detach().transpose(0, self.channel_axis).flatten(1).aminmax(dim=1)
            weight = fake_quantize(weight, low, high, self.bits, self.channel_axis)
        if self.in_layer or self._inputs[0] is None:
            return weight
        taken = weight.as_subclass(_TakenWeight)
        taken.inputs = self._inputs[0]
        return taken


class _TakenWeight(Tensor):
    """A layer's weight in the hands of another module: what it is applied to is quantized as the layer's input."""

    inputs: "ActivationQuantizer"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
        if func in _APPLICATIONS and isinstance(given["weight"], cls):
            x = given["weight"].inputs(given["input"])
            args, kwargs = (x, given["weight"], *args[2:]), {k: v for k, v in given.items() if k not in _OPERANDS}
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


_OPERANDS = ("input", "weight")
_APPLICATIONS = {F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}


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


def _enter_layer(layer: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    layer.parametrizations.weight[0].in_layer = True
    return (layer.input_quantizer(args[0]), *args[1:])


def _leave_layer(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
    layer.parametrizations.weight[0].in_layer = False


def quantize(network: nn.Module, weight_bits: int, activation_bits: int) -> nn.Module:
    """A quantized copy of ``network``: every Conv and Linear layer, weights per output channel, inputs per tensor.

    Activation ranges come from :func:`calibrate`. The input of the first layer is the network's own input and is kept
    at 8 bits or more. The network itself stays as it was; the copy's state dict holds the full-precision weights (under
    ``parametrizations.weight.original``) and the ranges (``input_quantizer.low``, ``.high``), and loads into another
    copy made with the same bits.

    Args:
        weight_bits, activation_bits: 2 to 8, or 32 to leave weights or activations in full precision.

    Raises:
        ValueError: bits out of range, or a network with no Conv or Linear layer.
    """
    _check_width(weight_bits, "weight bits")
    _check_width(activation_bits, "activation bits")
    quantized = copy.deepcopy(network)
    layers = [module for module in quantized.modules() if isinstance(module, _QUANTIZABLE)]
    if not layers:
        raise ValueError(f"nothing to quantize: {type(network).__name__} has no Conv and no Linear layer")
    for index, layer in enumerate(layers):
        inputs = None
        if activation_bits < FULL_PRECISION:
            bits = max(activation_bits, _INPUT_BITS) if index == 0 else activation_bits
            inputs = layer.input_quantizer = ActivationQuantizer(bits).to(layer.weight.device)
            layer.register_forward_pre_hook(_enter_layer)
            layer.register_forward_hook(_leave_layer, always_call=True)
        if min(weight_bits, activation_bits) < FULL_PRECISION:
            channel_axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
            parametrize.register_parametrization(layer, "weight", WeightQuantizer(weight_bits, channel_axis, inputs))
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
