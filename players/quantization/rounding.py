"""How values come to the levels of a grid."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zerosum.players.quantization.grids import Grid, round_to_levels

if TYPE_CHECKING:
    from zerosum.players.quantization.quantizers import ActivationQuantizer, Quantizer


class Rounding:
    """A part of a quantizer. What it learns is the quantizer's: parameters and buffers that :meth:`register` gives it.

    ``keeps_grid``: what is learned belongs to one grid, so that the range of a weight is kept, even one that follows.
    ``settles``: a weight may be put at the level that it is rounded to, and stays there.
    ``limits``: activations are brought within their quantizer's ``between`` first.
    """

    keeps_grid = False
    settles = True
    limits = False

    def register(self, quantizer: "Quantizer", rows: int, values: Tensor | None) -> None:
        """Give ``quantizer`` what is learned, for a grid of ``rows`` elements; its values come later.

        Args:
            values: of a weight, in the shape that :meth:`round` is given; None for activations.
        """

    def start(self, quantizer: "Quantizer", grid: Grid, values: Tensor | None) -> None:
        """Begin to learn anew, from a grid that was just found."""

    def levels(self, quantizer: "Quantizer", grid: Grid) -> Grid:
        """The grid with what is learned of it."""
        return grid

    def round(
        self, quantizer: "Quantizer", x: Tensor, grid: Grid, channel_axis: int | None, values_a_scale: int
    ) -> Tensor:
        """``x`` at levels of ``grid``, which :meth:`levels` gave; same shape and dtype.

        Args:
            channel_axis: the axis of ``x`` that a grid of (channels,) belongs to; None for a grid of one element.
            values_a_scale: how many values share one scale (of a batch: those of one sample).
        """
        raise NotImplementedError

    def learning(self, quantizer: "Quantizer", learning: bool) -> None:
        """From now on values are where what is learned has them, between levels where need be; or at levels again."""

    def undecided(self, quantizer: "Quantizer", power: float) -> Tensor | None:
        """How far from levels they are, a scalar in 0 to 1; the greater ``power``, the fewer of them count. None where
        values are at levels always."""
        return None

    def round_input(self, quantizer: "ActivationQuantizer", x: Tensor) -> Tensor:
        """:meth:`round` for a batch of activations."""
        return self.round(quantizer, x, quantizer.grid(), None, x.numel() // max(1, len(x)))


class Nearest(Rounding):
    """To the nearest level (:meth:`Grid.round`)."""

    limits = True

    def round(
        self, quantizer: "Quantizer", x: Tensor, grid: Grid, channel_axis: int | None, values_a_scale: int
    ) -> Tensor:
        return grid.round(x, channel_axis)

    def round_input(self, quantizer: "ActivationQuantizer", x: Tensor) -> Tensor:
        return round_to_levels(x, *quantizer.numbers(), quantizer.bits, quantizer.between)


class LearnedScale(Rounding):
    """To the nearest level of a scale that is learned (:meth:`Grid.round_learning`)."""

    keeps_grid = True

    def register(self, quantizer: "Quantizer", rows: int, values: Tensor | None) -> None:
        quantizer.scale = nn.Parameter(torch.ones(rows))

    def start(self, quantizer: "Quantizer", grid: Grid, values: Tensor | None) -> None:
        with torch.no_grad():
            quantizer.scale.copy_(grid.scale)

    def levels(self, quantizer: "Quantizer", grid: Grid) -> Grid:
        # A step too far would turn the grid around.
        return grid._replace(scale=quantizer.scale.clamp(min=torch.finfo(quantizer.scale.dtype).tiny))

    def round(
        self, quantizer: "Quantizer", x: Tensor, grid: Grid, channel_axis: int | None, values_a_scale: int
    ) -> Tensor:
        return grid.round_learning(x, values_a_scale, channel_axis)


class LearnedRounding(Rounding):
    """A weight down or up to the level beside it, as is learned: AdaRound (Nagel et al., ICML 2020).

    Of a weight w on a grid of scale s it gives ``s (floor(w / s) + h(v))`` with ``h(v) = clip(1.2 sigmoid(v) - 0.1)``,
    and v starts where that is w, while it is learning; then, and before, ``h >= 1/2`` is 1, and all else 0. The weight
    itself has no gradient.
    """

    keeps_grid = True
    settles = False  # what is learned belongs to the weight as it was

    def register(self, quantizer: "Quantizer", rows: int, values: Tensor | None) -> None:
        if values is None:
            raise ValueError("learned rounding is for weights; activations have no place of their own to learn")
        quantizer.upwards = nn.Parameter(torch.zeros_like(values))
        quantizer.register_buffer("soft", torch.tensor(False))

    def start(self, quantizer: "Quantizer", grid: Grid, values: Tensor | None) -> None:
        assert values is not None
        scaled = values / grid.beside(values, quantizer.channel_axis).scale
        share = (scaled - scaled.floor() + _BEYOND) / (1 + 2 * _BEYOND)
        with torch.no_grad():
            quantizer.upwards.copy_(share.logit())

    def learning(self, quantizer: "Quantizer", learning: bool) -> None:
        quantizer.soft.fill_(learning)

    def undecided(self, quantizer: "Quantizer", power: float) -> Tensor | None:
        return (1 - (2 * self._share(quantizer) - 1).abs().pow(power)).mean()

    def round(
        self, quantizer: "Quantizer", x: Tensor, grid: Grid, channel_axis: int | None, values_a_scale: int
    ) -> Tensor:
        scale, zero_point, bits = grid.beside(x, channel_axis)
        share = self._share(quantizer)
        upwards = torch.where(quantizer.soft, share, (share >= 0.5).to(share.dtype))
        return scale * ((x.detach() / scale).floor() + upwards).clamp(-zero_point, 2**bits - 1 - zero_point)

    @staticmethod
    def _share(quantizer: "Quantizer") -> Tensor:
        return (torch.sigmoid(quantizer.upwards) * (1 + 2 * _BEYOND) - _BEYOND).clamp(0, 1)


_BEYOND = 0.1  # how far h reaches beyond 0 and 1, so that it gets there
