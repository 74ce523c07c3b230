"""What rounds the weight of a layer, and what enters it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from players.quantization.grids import Grid, round_to_levels
from players.quantization.precision import FULL_PRECISION, Layer
from players.quantization.ranges import ActivationRange, WeightRange, find_range, sample

Symmetry = Literal["asymmetric", "symmetric"]
Granularity = Literal["per-channel", "per-tensor"]
Sums = Literal["float", "quantized"]

_FOLLOWING = ("minmax", "pairwise")  # ranges that follow a weight as it changes


@dataclass(frozen=True)
class Scheme:
    """How grids are laid. Activations are always quantized per tensor, as integer kernels need them.

    Ranges, by name: ``minmax`` (of a weight as it is now; of all batches that were observed), ``pairwise`` (of a weight
    on a symmetric grid: minmax, widened for what x86 kernels without VNNI can add), ``ema`` (moving average of batch
    minima and maxima, momentum 0.9, corrected for its start from zero), ``percentile`` (the central 99.9 %), ``mse``
    (least squared error), ``lsq`` (from mse on, the scale is learned; Esser et al., ICLR 2020). Percentile and mse of
    activations are moving averages over batches too; of weights, they are taken when the network is quantized.

    With quantized ``sums``, additions and average pooling take 8-bit values too (:mod:`players.quantization.sums`).
    Together with symmetric weights, that is what integer kernels run from one end of the network to the other.
    """

    weight_range: WeightRange = "minmax"
    weight_grid: Symmetry = "asymmetric"
    weight_granularity: Granularity = "per-channel"
    activation_range: ActivationRange = "ema"
    activation_grid: Symmetry = "asymmetric"
    sums: Sums = "float"

    def __post_init__(self) -> None:
        if self.weight_range == "pairwise" and self.weight_grid != "symmetric":
            raise ValueError("weight range pairwise: expected the symmetric weight grid, for which it is made")

    def __str__(self) -> str:
        weights = f"weights {self.weight_grid} {self.weight_granularity} {self.weight_range}"
        sums = ", sums too" if self.sums == "quantized" else ""
        return f"{weights}, activations {self.activation_grid} per-tensor {self.activation_range}{sums}"


class _Quantizer(nn.Module):
    """Rounds values to the grid of a range that is kept in ``low`` and ``high``, or of a scale that is learned.

    Where ``low`` is above ``high``, no range is known yet.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, range: WeightRange | ActivationRange, symmetric: bool, rows: int | None) -> None:
        super().__init__()
        self.bits, self.symmetric, self.range = bits, symmetric, range
        if rows is not None:
            self.register_buffer("low", torch.ones(rows))
            self.register_buffer("high", -torch.ones(rows))
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


class LayerWeight(nn.Module):
    """Parametrization of a layer's weight; ``bits`` 2 to 8, or 32 where its values are left as they are.

    ``shape`` is that in which its output channels have an axis of their own: the weight's, but for a conditional
    convolution, which stores its experts flat.
    """

    bits: int
    shape: torch.Size
    in_layer = False  # the layer's own forward is running, which has quantized its input
    _inputs: "tuple[ActivationQuantizer | None]" = (None,)  # in a tuple, because the layer owns the module

    def grid_of(self, weight: Tensor) -> Grid:
        """The levels that its values are on."""
        raise NotImplementedError

    def rounded(self, weight: Tensor) -> Tensor:
        """The weight at those levels, of what the layer keeps."""
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # or the sums in here would be seen as the network's
            weight = self.rounded(weight)
        if self.in_layer or self._inputs[0] is None:
            return weight
        taken: Any = weight if torch.compiler.is_compiling() else weight.as_subclass(_TakenWeight)
        taken.inputs = self._inputs[0]
        return taken


class WeightQuantizer(LayerWeight, _Quantizer):
    """A trained weight underneath, its values on a grid per output channel, or on one.

    Args:
        layer: whose weight it is; ``channel_axis`` is that of its output channels.
        bits: 2 to 8, or 32 to leave the values as they are.
        inputs: quantizer of what the layer is given, for modules that take the weight and compute with it themselves.
    """

    def __init__(self, layer: Layer, bits: int, scheme: Scheme, inputs: "ActivationQuantizer | None") -> None:
        shape = weight_shape(layer)
        channel_axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
        per_channel = scheme.weight_granularity == "per-channel"
        keeps_range = bits < FULL_PRECISION and scheme.weight_range not in _FOLLOWING
        rows = (shape[channel_axis] if per_channel else 1) if keeps_range else None
        _Quantizer.__init__(self, bits, scheme.weight_range, scheme.weight_grid == "symmetric", rows)
        self.shape, self.channel_axis = shape, channel_axis if per_channel else None
        self._inputs = (inputs,)
        if keeps_range:
            self.to(layer.weight.device)
            low, high = self._find_range(layer.weight.detach())
            self.low.copy_(low)
            self.high.copy_(high)
            self._start_learning()

    def _find_range(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.channel_axis
        kernels = weight.reshape(self.shape).transpose(0, axis or 0).movedim(1, -1)
        rows = kernels.reshape(1, -1) if axis is None else kernels.flatten(1)
        return find_range(self.range, rows, self.bits, self.symmetric)

    def grid_of(self, weight: Tensor) -> Grid:
        """Minmax and pairwise follow the weight, other ranges are kept. Of (channels,), or of one element."""
        if self.range in _FOLLOWING:
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


class _TakenWeight(Tensor):
    """A layer's weight in the hands of another module: what it is applied to is quantized as the layer's input."""

    inputs: "ActivationQuantizer"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _apply(func, args, kwargs)


class TakenWeights(TorchFunctionMode):
    """Stands in for :class:`_TakenWeight` while torch.export traces, which has tensors of a class of its own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(func, args, kwargs)


def _apply(func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(_OPERANDS, args, strict=False)) | (kwargs or {})
    if func in _APPLICATIONS and hasattr(given["weight"], "inputs"):
        x = given["weight"].inputs(given["input"])
        args, kwargs = (x, given["weight"], *args[2:]), {k: v for k, v in given.items() if k not in _OPERANDS}
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
        self.low.fill_(1)
        self.high.fill_(-1)

    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # or the sums in here would be seen as the network's
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
        self.observed = int(not (self.low > self.high).item())
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
