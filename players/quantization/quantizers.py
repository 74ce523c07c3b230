"""What rounds the weight of a layer, and what enters it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from zerosum.players.lazy import timm
from zerosum.players.quantization.grids import ANYWHERE, Grid
from zerosum.players.quantization.precision import FULL_PRECISION, Layer
from zerosum.players.quantization.ranges import ActivationRange, WeightRange, way_of
from zerosum.players.quantization.rounding import LearnedScale
from zerosum.players.quantization.scheme import Scheme
from zerosum.players.quantization.taken import TakenWeight

_LOGITS_BITS = 8
_ROOM = 3


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
        self.range, self.rounding = way_of(name, bits)

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

    def learn_scale(self) -> None:
        """Round to a scale that is learned: from the next range observed on, or the one that is loaded."""
        self.rounding = LearnedScale()
        self.rounding.register(self, 1, None)
        self.to(self.low.device)

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

    @contextmanager
    def in_levels(self, between: tuple[float, float]) -> Iterator[float]:
        """Inside, it brings values within these limits too, and takes and gives them in units of its scale, which it
        yields: two multiplications less of all values. Where :meth:`may_limit`."""
        scale, zero_point = self.numbers()
        low, high = between
        self.between, self._numbers = (low / scale, high / scale), (1.0, zero_point)
        try:
            yield scale
        finally:
            self.between, self._numbers = ANYWHERE, (scale, zero_point)

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
