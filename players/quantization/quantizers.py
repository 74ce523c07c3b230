"""What rounds the weight of a layer, and what enters it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from zerosum.players.lazy import timm
from zerosum.players.quantization.grids import ANYWHERE, Grid
from zerosum.players.quantization.precision import FULL_PRECISION, Layer
from zerosum.players.quantization.ranges import WAYS, ActivationRange, WeightRange
from zerosum.players.quantization.taken import TakenWeight

_LOGITS_BITS = 8
_ROOM = 3

Symmetry = Literal["asymmetric", "symmetric"]
Granularity = Literal["per-channel", "per-tensor"]
Sums = Literal["float", "quantized"]


@dataclass(frozen=True)
class Scheme:
    """How grids are laid. Activations are always quantized per tensor, as integer kernels need them.

    Ranges, by name: ``minmax`` (of a weight as it is now; of all batches that were observed), ``pairwise`` (of a weight
    on a symmetric grid: minmax, widened for what x86 kernels without VNNI can add), ``ema`` (moving average of batch
    minima and maxima, momentum 0.9, corrected for its start from zero), ``percentile`` (the central 99.9 %), ``mse``
    (least squared error), ``lsq`` (from mse on, the scale is learned; Esser et al., ICLR 2020). Percentile and mse of
    activations are moving averages over batches too; of weights, they are taken when the network is quantized.

    With quantized ``sums``, additions and average pooling take 8-bit values too
    (:mod:`zerosum.players.quantization.sums`). Together with symmetric weights, that is what integer kernels run from
    one end of the network to the other.
    """

    weight_range: WeightRange = "mse"
    """How far the levels of a weight reach: over all of it, as far and as neighbours' sums (for 8-bit kernels of x86
    CPUs without VNNI), the central 99.9 %, for least squared error, or from there on with what is learned: the scale
    (lsq), or whether a weight goes down or up (adaround)."""
    weight_grid: Symmetry = "asymmetric"
    """Whether zero is the middle level of a weight (symmetric)."""
    weight_granularity: Granularity = "per-channel"
    """One grid for each output channel of a weight, or one for all."""
    activation_range: ActivationRange = "mse"
    """How far those of activations reach; ema is the moving average of batch minima and maxima."""
    activation_grid: Symmetry = "asymmetric"
    """Whether zero is the middle level of activations (symmetric)."""
    sums: Sums = "float"
    """Whether additions (residual connections) and average pooling take 8-bit values too. With --weight-grid symmetric
    and bits such as w8a8, --sums quantized is the scheme that integer kernels run from end to end."""
    logits: Sums = "float"
    """Whether what the last layer gives is rounded to 8 bits too, as runtimes of phones want it."""

    def __post_init__(self) -> None:
        if self.weight_range == "pairwise" and self.weight_grid != "symmetric":
            raise ValueError("weight range pairwise: expected the symmetric weight grid, for which it is made")

    def __str__(self) -> str:
        weights = f"weights {self.weight_grid} {self.weight_granularity} {self.weight_range}"
        too = "".join(f", {name} too" for name in ("sums", "logits") if getattr(self, name) == "quantized")
        return f"{weights}, activations {self.activation_grid} per-tensor {self.activation_range}{too}"


class Quantizer(nn.Module):
    """Rounds values to the grid of a range that is kept in ``low`` and ``high``: a range and a rounding, by name.

    Where ``low`` is above ``high``, no range is known yet.
    """

    low: Tensor
    high: Tensor
    scale: nn.Parameter  # where it is learned
    upwards: nn.Parameter  # where the rounding is
    soft: Tensor
    channel_axis: int | None  # of the weight, that a grid belongs to

    def __init__(self, bits: int, name: WeightRange | ActivationRange, symmetric: bool) -> None:
        super().__init__()
        self.bits, self.symmetric = bits, symmetric
        make_range, make_rounding = WAYS[name]
        self.range, self.rounding = make_range(), make_rounding()

    def _keep(self, rows: int, values: Tensor | None) -> None:
        self.register_buffer("low", torch.ones(rows))
        self.register_buffer("high", -torch.ones(rows))
        self.rounding.register(self, rows, values)

    def _start(self, values: Tensor | None) -> None:
        self.rounding.start(self, Grid.over(self.low, self.high, self.bits, self.symmetric), values)

    def grid(self) -> Grid:
        """The levels that values are rounded to."""
        return self.rounding.levels(self, Grid.over(self.low, self.high, self.bits, self.symmetric))


def weight_shape(layer: Layer) -> torch.Size:
    """The shape of a layer's weight with its output channels on an axis: of a conditional convolution, all experts'."""
    if isinstance(layer, timm.layers.CondConv2d):
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
        taken: Any = weight if torch.compiler.is_compiling() else weight.as_subclass(TakenWeight)
        taken.inputs = self._inputs[0]
        return taken


class WeightQuantizer(LayerWeight, Quantizer):
    """A trained weight underneath, its values on a grid per output channel, or on one.

    Args:
        layer: whose weight it is; ``channel_axis`` is that of its output channels.
        bits: 2 to 8, or 32 to leave the values as they are.
        inputs: quantizer of what the layer is given, for modules that take the weight and compute with it themselves.
    """

    def __init__(self, layer: Layer, bits: int, scheme: Scheme, inputs: "ActivationQuantizer | None") -> None:
        Quantizer.__init__(self, bits, scheme.weight_range, scheme.weight_grid == "symmetric")
        self.shape, self._inputs = weight_shape(layer), (inputs,)
        channel_axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
        self.channel_axis = channel_axis if scheme.weight_granularity == "per-channel" else None
        self.follows = self.range.follows and not self.rounding.keeps_grid
        if bits < FULL_PRECISION and not self.follows:
            kernels = layer.weight.detach().reshape(self.shape)
            self._keep(1 if self.channel_axis is None else self.shape[channel_axis], kernels)
            self.to(layer.weight.device)
            low, high = self._find_range(kernels)
            self.low.copy_(low)
            self.high.copy_(high)
            self._start(kernels)

    def _find_range(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.channel_axis
        kernels = weight.reshape(self.shape).transpose(0, axis or 0).movedim(1, -1)
        rows = kernels.reshape(1, -1) if axis is None else kernels.flatten(1)
        return self.range.find(rows, self.bits, self.symmetric)

    def grid_of(self, weight: Tensor) -> Grid:
        """Some ranges follow the weight, others are kept. Of (channels,), or of one element."""
        if self.follows:
            return Grid.over(*self._find_range(weight.detach()), self.bits, self.symmetric)
        return self.grid()

    def rounded(self, weight: Tensor) -> Tensor:
        """The weight at its levels; itself, with 32 bits."""
        if self.bits == FULL_PRECISION:
            return weight
        grid, kernels = self.grid_of(weight), weight.reshape(self.shape)
        values_a_scale = weight.numel() // len(grid.scale)
        return self.rounding.round(self, kernels, grid, self.channel_axis, values_a_scale).reshape(weight.shape)


class ActivationQuantizer(Quantizer):
    """What enters a layer, on one grid over a range that was observed on batches and then kept, or learned from there.

    Before any observation the input passes unchanged.

    Attributes:
        between: limits that values are brought within before they are rounded (ReLU's, say).
    """

    between = ANYWHERE

    def __init__(self, bits: int, range: ActivationRange = "ema", symmetric: bool = False) -> None:
        super().__init__(bits, range, symmetric)
        self._keep(1, None)
        self.observing = False
        self.observed = 0
        self._numbers: tuple[float, int] | None = None  # scale and zero point, where they do not change

    def reset(self) -> None:
        """Forget the range."""
        self.observed = 0
        self._numbers = None
        self.low.fill_(1)
        self.high.fill_(-1)

    def numbers(self) -> tuple[float, int]:
        """Scale and zero point of a grid that is not learned; the device is asked once an observation."""
        if self._numbers is None:
            grid = self.grid()
            self._numbers = grid.scale.item(), int(grid.zero_point.item())
        return self._numbers

    def may_limit(self) -> bool:
        """Whether it does as ``between`` says, now."""
        return bool(self.observed) and self.rounding.limits and not self.observing

    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # or the sums in here would be seen as the network's
            if self.observing:
                self._observe(x.detach())
            return self.rounding.round_input(self, x) if self.observed else x

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.observed = int(not (self.low > self.high).item())
        self._numbers = None

    def _observe(self, x: Tensor) -> None:
        self.observed += 1
        self._numbers = None
        self.range.observe(x, self.low, self.high, self.observed, self.bits, self.symmetric)
        self._start(None)


class LogitsQuantizer(ActivationQuantizer):
    """What the last layer gives, in 8 bits over three times the range that was observed.

    Networks are surer of real images than of those that are observed here without data: EfficientNet-Lite0's logits
    reach twice as far on ImageNet. Logits that are cut are ties: 77.4 % top-1 there, and 87.4 with three times the
    range, as in full precision.
    """

    def __init__(self, symmetric: bool) -> None:
        super().__init__(_LOGITS_BITS, "minmax", symmetric)

    def grid(self) -> Grid:
        return Grid.over(_ROOM * self.low, _ROOM * self.high, self.bits, self.symmetric)
