"""Grids of evenly spaced levels, and rounding to them in float arithmetic, differentiably."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Grid(NamedTuple):
    """The 2^bits levels ``scale * (k - zero_point)``, ``k`` in 0 … 2^bits - 1; zero is one of them.

    ``scale`` (float32, > 0) and ``zero_point`` (int32, 0 … 2^bits - 1) have one element, or (channels,).
    """

    scale: Tensor
    zero_point: Tensor
    bits: int

    @classmethod
    def over(cls, low: Tensor, high: Tensor, bits: int, symmetric: bool = False) -> "Grid":
        """The grid over [low, high], widened to hold zero.

        Asymmetric (Jacob et al., CVPR 2018): ``scale = (high - low) / (2^bits - 1)``,
        ``zero_point = round(-low / scale)``. Symmetric: ``scale = max(-low, high) / (2^(bits-1) - 1)``, and the zero
        point is the middle level 2^(bits-1), which is 0 in signed integers, so that kernels need no correction for it.

        Args:
            low, high: one element, or (channels,); no gradient flows to them.
            bits: 2 to 16.

        Raises:
            ValueError: ``bits`` out of range.
        """
        if not 2 <= bits <= 16:
            raise ValueError(f"fake quantization to {bits} bits: expected 2 to 16")
        levels = 2**bits - 1
        low, high = low.detach().float().clamp(max=0), high.detach().float().clamp(min=0)
        if symmetric:
            middle = 2 ** (bits - 1)
            scale = torch.maximum(-low, high) / (middle - 1)
            zero_point = torch.full_like(scale, middle)
        else:
            scale = (high - low) / levels
            zero_point = torch.round(-low / scale).nan_to_num().clamp(0, levels)
        smallest = torch.finfo(scale.dtype).tiny  # of which the reciprocal is finite
        scale = torch.where(scale >= smallest, scale, torch.ones_like(scale))
        return cls(scale, zero_point.to(torch.int32), bits)

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest level."""
        return -self.zero_point * self.scale, (2**self.bits - 1 - self.zero_point) * self.scale

    def beside(self, x: Tensor, channel_axis: int | None) -> "Grid":
        """The grid with ``scale`` and ``zero_point`` in a shape that broadcasts against ``x``."""
        shape = [-1 if axis == channel_axis else 1 for axis in range(x.ndim)]
        return self._replace(scale=self.scale.reshape(shape), zero_point=self.zero_point.reshape(shape))

    def round(self, x: Tensor, channel_axis: int | None = None) -> Tensor:
        """``x`` at the nearest levels; same shape and dtype.

        The gradient is straight-through inside the grid's range and zero outside; none flows to the scale.

        Args:
            channel_axis: the axis of ``x`` that a grid of (channels,) belongs to; None for a grid of one element.
        """
        if channel_axis is None:
            return round_to_levels(x, self.scale.item(), int(self.zero_point.item()), self.bits)
        scale, zero_point, bits = self.beside(x, channel_axis)
        return _RoundingByChannel.apply(x, scale.detach(), zero_point, 2**bits - 1)

    def round_learning(self, x: Tensor, values_a_scale: int, channel_axis: int | None = None) -> Tensor:
        """``x`` at the nearest levels, with a gradient for the scale too: learned step size quantization.

        Of ``x / scale`` inside the grid, the gradient with respect to the scale is ``round(x / scale) - x / scale``;
        beyond it, the outermost ``k - zero_point``; both times ``1 / sqrt(values_a_scale * (2^bits - 1 - zero_point))``
        (LSQ; Esser et al., ICLR 2020, equations 1 to 3 and section 2.2). The paper's signed grid is the symmetric one,
        its unsigned grid has zero point 0; any other zero point, which is not learned, is treated alike.

        Args:
            values_a_scale: how many values share one scale (of a batch: those of one sample).
        """
        if channel_axis is None and x.device.type == "cpu":
            lowest = -int(self.zero_point.item())
            highest = 2**self.bits - 1 + lowest
            factor = 1 / math.sqrt(values_a_scale * max(1, highest))
            return _LearningRounding.apply(x, self.scale, lowest, highest, factor)
        positive = 2**self.bits - 1 - self.zero_point
        factor = (values_a_scale * positive.clamp(min=1)).rsqrt()
        scaled_down = self.scale * factor
        scale = self.scale.detach() + (scaled_down - scaled_down.detach())
        zero_point = self.zero_point
        if channel_axis is not None:
            shape = [-1 if axis == channel_axis else 1 for axis in range(x.ndim)]
            scale, zero_point, positive = scale.reshape(shape), zero_point.reshape(shape), positive.reshape(shape)
        inside = (x / scale).clamp(-zero_point, positive)
        return (inside + (inside.round() - inside).detach()) * scale


ANYWHERE = (-math.inf, math.inf)


def round_to_levels(
    x: Tensor, scale: float, zero_point: int, bits: int, between: tuple[float, float] = ANYWHERE
) -> Tensor:
    """:meth:`Grid.round` for a grid of one element whose numbers are known to Python, so that no device waits; of what
    ``F.hardtanh(x, *between)`` gives, in one go."""
    if x.device.type == "cpu":
        return _Rounding.apply(x, scale, -zero_point, 2**bits - 1 - zero_point, between)
    x = x if between == ANYWHERE else F.hardtanh(x, *between)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 2**bits - 1)


def _at_levels(x: Tensor, scale: float, lowest: float, highest: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if scale == 1:
        return wide.round().clamp_(lowest, highest).to(x.dtype)
    return (wide * (1 / scale)).round_().clamp_(lowest, highest).mul_(scale).to(x.dtype)


class _Rounding(torch.autograd.Function):
    """What torch.fake_quantize_per_tensor_affine does, in vectorised operations: there it is a scalar loop on the CPU,
    15 times slower (measured, 16 × 16 × 32 × 32). Rounding is done in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, lowest: int, highest: int, between: tuple[float, float]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.inside = max((lowest - 0.5) * scale, between[0]), min((highest + 0.5) * scale, between[1])
        if between == ANYWHERE:
            return _at_levels(x, scale, lowest, highest)
        ends = torch.tensor(between, dtype=torch.promote_types(x.dtype, torch.float32)) * (1 / scale)
        return _at_levels(x, scale, *ends.round_().clamp_(lowest, highest).tolist())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, *ctx.inside), None, None, None, None


class _RoundingByChannel(torch.autograd.Function):
    """To the bit what torch.fake_quantize_per_channel_affine does, which is five times as slow on the CPU, and lets the
    host wait for the device to see whether zero points are in range. Scale and zero point broadcast against ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, highest: int) -> Tensor:
        zero = zero_point.to(scale.dtype)
        k = (x.to(torch.promote_types(x.dtype, torch.float32)) * scale.reciprocal()).round_().add_(zero)
        level = k.clamp(0, highest)
        ctx.save_for_backward(level == k)
        return level.sub_(zero).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


_EDGE = 1e-3  # levels; the outermost are inside


class _LearningRounding(torch.autograd.Function):
    """:meth:`Grid.round_learning` for a grid of one element on the CPU, in few passes over memory. With y the rounded
    values, g their gradient, that of the scale is ``(<g, y> - <g inside the grid, x>) / scale``, times the factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lowest: int, highest: int, factor: float) -> Tensor:
        step = scale.item()
        rounded = _at_levels(x, step, lowest, highest)
        ctx.save_for_backward(x, rounded, scale)
        ctx.inside, ctx.factor = ((lowest - _EDGE) * step, (highest + _EDGE) * step), factor
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, rounded, scale = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(gradient, x, *ctx.inside)
        of_scale = (_dot(gradient, rounded) - _dot(inside, x)) / scale * ctx.factor
        return inside, of_scale.to(scale.dtype).reshape(scale.shape), None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.itemsize < 4:  # of two sums that nearly cancel, less would leave nothing
        a, b = a.float(), b.float()
    if a.stride() == b.stride() and a.dtype == b.dtype and (_is_dense(a) and _is_dense(b)):
        return torch.dot(*(x.as_strided((x.numel(),), (1,), x.storage_offset()) for x in (a, b)))
    return (a * b).sum()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def fake_quantize(
    x: Tensor, low: Tensor, high: Tensor, bits: int, channel_axis: int | None = None, symmetric: bool = False
) -> Tensor:
    """Round ``x`` to the levels of :meth:`Grid.over` [low, high]; see there, and :meth:`Grid.round`."""
    return Grid.over(low, high, bits, symmetric).round(x, channel_axis)
