"""A network whose layers compute with rounded weights and rounded inputs: fake quantization.

A quantized copy keeps the architecture. Each convolution and linear layer, of any subclass, computes with its weight
rounded to a grid (a parametrization, so the trained weight stays in full precision underneath) and with its input
rounded to a grid (a forward pre-hook). What feeds a layer is quantized at the layer, so no activation function has to
be known by name. Where another module takes the layer's weight and computes with it (fused attention projections), the
weight brings the quantizer of its input along.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from players.quantization.grids import Grid, round_to_levels
from players.quantization.precision import FULL_PRECISION, Bits, Layer, assign_bits, quantizable_layers
from players.quantization.ranges import ActivationRange, WeightRange, find_range, sample

Symmetry = Literal["asymmetric", "symmetric"]
Granularity = Literal["per-channel", "per-tensor"]


@dataclass(frozen=True)
class Scheme:
    """How grids are laid. Activations are always quantized per tensor, as integer kernels need them.

    Ranges, by name: ``minmax`` (of a weight as it is now; of all batches that were observed), ``ema`` (moving average
    of batch minima and maxima, momentum 0.9, corrected for its start from zero), ``percentile`` (the central 99.9 %),
    ``mse`` (least squared error), ``lsq`` (from mse on, the scale is learned; Esser et al., ICLR 2020). Percentile and
    mse of activations are moving averages over batches too; of weights, they are taken when the network is quantized.
    """

    weight_range: WeightRange = "minmax"
    weight_grid: Symmetry = "asymmetric"
    weight_granularity: Granularity = "per-channel"
    activation_range: ActivationRange = "ema"
    activation_grid: Symmetry = "asymmetric"

    def __str__(self) -> str:
        weights = f"weights {self.weight_grid} {self.weight_granularity} {self.weight_range}"
        return f"{weights}, activations {self.activation_grid} per-tensor {self.activation_range}"


class _Quantizer(nn.Module):
    """Rounds values to the grid of a range that is kept in ``low`` and ``high``, or of a scale that is learned."""

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, range: WeightRange | ActivationRange, symmetric: bool, rows: int | None) -> None:
        super().__init__()
        self.bits, self.symmetric, self.range = bits, symmetric, range
        if rows is not None:
            self.register_buffer("low", torch.zeros(rows))
            self.register_buffer("high", torch.zeros(rows))
            if range == "lsq":
                self.scale = nn.Parameter(torch.ones(rows))

    def grid(self) -> Grid:
        """The levels that values are rounded to."""
        grid = Grid.over(self.low, self.high, self.bits, self.symmetric)
        if self.range == "lsq":
            # A step too far would turn the grid around.
            grid = grid._replace(scale=self.scale.clamp(min=torch.finfo(self.scale.dtype).tiny))
        return grid

    def _start_learning(self) -> None:
        if self.range == "lsq":
            with torch.no_grad():
                self.scale.copy_(Grid.over(self.low, self.high, self.bits, self.symmetric).scale)


def weight_shape(layer: Layer) -> torch.Size:
    """The shape of a layer's weight with its output channels on an axis: of a conditional convolution, all experts'."""
    if isinstance(layer, CondConv2d):
        return torch.Size((layer.num_experts * layer.out_channels, *layer.weight_shape[1:]))
    return layer.weight.shape


class WeightQuantizer(_Quantizer):
    """Parametrization of a layer's weight: its values on a grid per output channel, or on one.

    Args:
        layer: whose weight it is. ``shape`` is that in which its output channels have an axis of their own,
            ``channel_axis``: the weight's own, but for a conditional convolution, which stores its experts flat.
        bits: 2 to 8, or 32 to leave the values as they are.
        inputs: quantizer of what the layer is given, for modules that take the weight and compute with it themselves.
    """

    def __init__(self, layer: Layer, bits: int, scheme: Scheme, inputs: "ActivationQuantizer | None") -> None:
        shape = weight_shape(layer)
        channel_axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
        per_channel = scheme.weight_granularity == "per-channel"
        keeps_range = bits < FULL_PRECISION and scheme.weight_range != "minmax"
        rows = (shape[channel_axis] if per_channel else 1) if keeps_range else None
        super().__init__(bits, scheme.weight_range, scheme.weight_grid == "symmetric", rows)
        self.shape, self.channel_axis = shape, channel_axis if per_channel else None
        self.in_layer = False  # the layer's own forward is running, which has quantized its input
        self._inputs = (inputs,)  # in a tuple, because the layer owns the module
        if keeps_range:
            self.to(layer.weight.device)
            low, high = self._find_range(layer.weight.detach())
            self.low.copy_(low)
            self.high.copy_(high)
            self._start_learning()

    def _find_range(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.channel_axis
        rows = weight.reshape(1, -1) if axis is None else weight.reshape(self.shape).transpose(0, axis).flatten(1)
        return find_range(self.range, rows, self.bits, self.symmetric)

    def grid_of(self, weight: Tensor) -> Grid:
        """The levels that a weight is rounded to: minmax follows it, other ranges are kept."""
        if self.range == "minmax":
            return Grid.over(*self._find_range(weight.detach()), self.bits, self.symmetric)
        return self.grid()

    def rounded(self, weight: Tensor) -> Tensor:
        """The weight at the nearest levels; itself, with 32 bits."""
        if self.bits == FULL_PRECISION:
            return weight
        grid, kernels = self.grid_of(weight), weight.reshape(self.shape)
        if self.range == "lsq":
            kernels = grid.round_learning(kernels, weight.numel() // len(grid.scale), self.channel_axis)
        else:
            kernels = grid.round(kernels, self.channel_axis)
        return kernels.reshape(weight.shape)

    def forward(self, weight: Tensor) -> Tensor:
        weight = self.rounded(weight)
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


class ActivationQuantizer(_Quantizer):
    """What enters a layer, on one grid over a range that was observed on batches and then kept, or learned from there.

    Before any observation the input passes unchanged.
    """

    momentum = 0.9

    def __init__(self, bits: int, range: ActivationRange = "ema", symmetric: bool = False) -> None:
        super().__init__(bits, range, symmetric, rows=1)
        self.observing = False
        self.observed = 0
        self._numbers: tuple[float, int] | None = None  # scale and zero point, where they do not change

    def reset(self) -> None:
        """Forget the range."""
        self.observed = 0
        self._numbers = None

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self._observe(x.detach())
        if not self.observed:
            return x
        if self.range == "lsq":
            return self.grid().round_learning(x, x[0].numel())
        if self._numbers is None:
            grid = self.grid()
            self._numbers = grid.scale.item(), int(grid.zero_point.item())
        return round_to_levels(x, *self._numbers, self.bits)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.observed = int((self.high > self.low).item())
        self._numbers = None

    def _observe(self, x: Tensor) -> None:
        self.observed += 1
        self._numbers = None
        values = x.reshape(1, -1) if self.range in ("minmax", "ema") else sample(x)
        low, high = find_range(self.range, values, self.bits, self.symmetric)
        low, high = low.to(self.low.dtype), high.to(self.high.dtype)
        if self.range == "minmax" and self.observed > 1:
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        # Weight of the newest batch in a bias-corrected average: (1 - m) / (1 - m^t); 1 for the first.
        newest = 1 if self.range == "minmax" else (1 - self.momentum) / (1 - self.momentum**self.observed)
        self.low.lerp_(low, newest)
        self.high.lerp_(high, newest)
        self._start_learning()


def _enter_layer(layer: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    layer.parametrizations.weight[0].in_layer = True
    return (layer.input_quantizer(args[0]), *args[1:])


def _leave_layer(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
    layer.parametrizations.weight[0].in_layer = False


def quantize(network: nn.Module, bits: Bits | Mapping[str, Bits], scheme: Scheme | None = None) -> nn.Module:
    """A quantized copy of ``network``: every Conv and Linear layer's weight, and what enters the layer.

    Activation ranges come from :func:`calibrate`. The network itself stays as it was; the copy's state dict holds the
    full-precision weights (under ``parametrizations.weight.original``) and the ranges (``low``, ``high`` of
    ``parametrizations.weight.0`` and ``input_quantizer``), and loads into another copy made with the same bits and
    scheme.

    Args:
        bits: of all layers, as :func:`assign_bits` gives them (it keeps the network's own input at 8 bits or more), or
            those of each layer by name.
        scheme: default: asymmetric grids, minmax per channel for weights, ema for activations.

    Raises:
        ValueError: bits out of range, a network with no Conv or Linear layer, or ``bits`` that do not name its layers.
    """
    scheme = scheme or Scheme()
    if isinstance(bits, Bits):
        bits = assign_bits(network, bits)
    quantized = copy.deepcopy(network)
    layers = quantizable_layers(quantized)
    if bits.keys() != layers.keys():
        raise ValueError(f"bits for {', '.join(bits)}; expected them for {', '.join(layers)}")
    for name, layer in layers.items():
        bits[name].check(f"layer {name}")
        inputs = None
        if bits[name].activation < FULL_PRECISION:
            symmetric = scheme.activation_grid == "symmetric"
            inputs = ActivationQuantizer(bits[name].activation, scheme.activation_range, symmetric)
            layer.input_quantizer = inputs.to(layer.weight.device)
            layer.register_forward_pre_hook(_enter_layer)
            layer.register_forward_hook(_leave_layer, always_call=True)
        if min(bits[name]) < FULL_PRECISION:
            quantizer = WeightQuantizer(layer, bits[name].weight, scheme, inputs)
            parametrize.register_parametrization(layer, "weight", quantizer)
    return quantized


def layer_bits(quantized: nn.Module) -> dict[str, Bits]:
    """The bits of every layer of a network that :func:`quantize` made, by name."""
    found = {}
    for name, layer in quantizable_layers(quantized).items():
        weights, inputs = weight_quantizer(layer), getattr(layer, "input_quantizer", None)
        found[name] = Bits(
            *(FULL_PRECISION if quantizer is None else quantizer.bits for quantizer in (weights, inputs))
        )
    return found


def float_weight(layer: nn.Module) -> Tensor:
    """A layer's weight in full precision, from underneath its quantizer."""
    parametrized = parametrize.is_parametrized(layer, "weight")
    return layer.parametrizations.weight.original if parametrized else layer.weight  # type: ignore


def weight_quantizer(layer: nn.Module) -> WeightQuantizer | None:
    """The quantizer of a layer's weight, if it has one."""
    return layer.parametrizations.weight[0] if parametrize.is_parametrized(layer, "weight") else None  # type: ignore


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
