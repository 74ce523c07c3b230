"""What became of each layer: its bits, its ranges, what rounding costs, and its share of the size."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor, nn

from zerosum.players.quantization.attention import separated
from zerosum.players.quantization.grids import Grid
from zerosum.players.quantization.integers import integers_of
from zerosum.players.quantization.layers import float_weight, layer_bits, weight_quantizer
from zerosum.players.quantization.packing import packed_state
from zerosum.players.quantization.precision import FULL_PRECISION, Bits, Layer, quantizable_layers
from zerosum.players.quantization.quantizers import ActivationQuantizer
from zerosum.players.quantization.scheme import Scheme

Range = tuple[float, float]


class LayerRow(NamedTuple):
    """A layer. Ranges and signal-to-quantization-noise ratios (SQNR, dB) are None where nothing is rounded.

    Noise of the weight is all that it is away from the original's, also where it has learned; noise of the activation
    is what rounding does to what enters. ``weight_range`` spans all channels; ``size`` is the bytes of the layer's
    tensors as they are stored, ``share`` that of all the network's; ``block`` is that which it was reconstructed in,
    empty where it was not.
    """

    layer: str
    shape: tuple[int, ...]
    bits: Bits
    scheme: str
    weight_range: Range | None
    activation_range: Range | None
    weight_sqnr: float | None
    activation_sqnr: float | None
    size: int
    share: float
    block: str = ""


class LayerTable(NamedTuple):
    """Rows in the network's order; bytes of all its tensors as they are stored, and of the original's in float32."""

    rows: list[LayerRow]
    size: int
    float_size: int

    def write(self, path: Path) -> None:
        """As comma-separated values: a line a layer, ranges in two columns each, and a line for what is in no layer."""
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            low_high = ("weight_low", "weight_high", "activation_low", "activation_high")
            writer.writerow(("layer", "shape", "bits", "scheme", *low_high, *LayerRow._fields[6:]))
            for row in self.rows:
                ranges = (*(row.weight_range or ("", "")), *(row.activation_range or ("", "")))
                shape = "x".join(map(str, row.shape))
                writer.writerow((row.layer, shape, row.bits, row.scheme, *ranges, *row[6:]))
            rest = self.size - sum(row.size for row in self.rows)
            writer.writerow(("(other tensors)", *[""] * 9, rest, rest / self.size, ""))

    def draw(self) -> Table:
        """For people to read; blocks apart from each other."""
        sizes = f"{self.float_size / 1e6:.2f} MB in float32, {self.size / 1e6:.2f} MB as stored"
        table = Table(title=self.rows[0].scheme, caption=f"SQNR in dB, size in percent: {sizes}", box=SIMPLE, padding=0)
        table.add_column("layer", overflow="fold")
        for heading in ("shape", "bits", "weight", "SQNR", "input", "SQNR", "size"):
            table.add_column(heading, justify="right")
        for row, behind in zip(self.rows, [*self.rows[1:], None], strict=True):
            weight = (_draw_range(row.weight_range), _draw_ratio(row.weight_sqnr))
            inputs = (_draw_range(row.activation_range), _draw_ratio(row.activation_sqnr))
            shape = "×".join(map(str, row.shape))
            table.add_row(row.layer, shape, str(row.bits), *weight, *inputs, f"{100 * row.share:.1f}")
            if behind is not None and behind.block != row.block:
                table.add_section()
        return table


@torch.no_grad()
def describe_layers(
    original: nn.Module,
    quantized: nn.Module,
    images: Tensor,
    scheme: Scheme,
    blocks: Mapping[str, str] | None = None,
) -> LayerTable:
    """The layers of ``quantized``, a calibrated copy that :func:`quantize` made of ``original``.

    Args:
        images: (N, channels, height, width) in normalised input space; the activations looked at are theirs.
        blocks: the names of the blocks that layers were reconstructed in, by theirs.
    """
    block_of = blocks or {}
    activation_sqnr = _activation_sqnr(quantized, images)
    state, bits = packed_state(quantized), layer_bits(quantized)
    size = _bytes(state.values())
    rows, trained = [], quantizable_layers(separated(original))
    for name, layer in quantizable_layers(quantized).items():
        weight = float_weight(layer)
        weight_range = weight_sqnr = activation_range = None
        quantizer, inputs = weight_quantizer(layer), getattr(layer, "input_quantizer", None)
        if quantizer is not None and quantizer.bits < FULL_PRECISION:
            weight_range = _weight_range(layer, quantizer.grid_of(weight))
            weight_sqnr = sqnr(float_weight(trained[name]), quantizer.rounded(weight))
        if inputs is not None and inputs.observed:
            activation_range = _activation_range(inputs)
        ranges, ratios = (weight_range, activation_range), (weight_sqnr, activation_sqnr.get(name))
        stored = _bytes(tensor for key, tensor in state.items() if key.startswith(f"{name}."))
        rows.append(
            LayerRow(
                name,
                tuple(weight.shape),
                bits[name],
                str(scheme),
                *ranges,
                *ratios,
                size=stored,
                share=stored / size,
                block=block_of.get(name, ""),
            )
        )
    return LayerTable(rows, size, _bytes(original.state_dict().values()))


def sqnr(x: Tensor, rounded: Tensor) -> float:
    """Signal-to-quantization-noise ratio in decibels, ``10 log10(sum x² / sum (x - rounded)²)``; inf without noise."""
    noise = (x - rounded).double().square().sum().item()
    signal = x.double().square().sum().item()
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _activation_sqnr(quantized: nn.Module, images: Tensor) -> dict[str, float]:
    """By name of the layer; of one that runs several times, the last time counts."""
    found: dict[str, float] = {}

    def listen(name: str) -> Any:
        return lambda quantizer, args, output: found.update({name: sqnr(args[0], output)})

    suffix = ".input_quantizer"
    quantizers = {n.removesuffix(suffix): m for n, m in quantized.named_modules() if isinstance(m, ActivationQuantizer)}
    handles = [quantizer.register_forward_hook(listen(name)) for name, quantizer in quantizers.items()]
    try:
        quantized(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _weight_range(layer: Layer, grid: Grid) -> Range:
    """From the lowest level to the highest, of channels that are not all zero; the others' grids say nothing."""
    integers = integers_of(layer)
    assert integers is not None
    others = [axis for axis, size in enumerate(integers.scale.shape) if size == 1]
    used = (integers.levels != integers.zero_point).sum(others, keepdim=True) > 0
    lowest, highest = (end.reshape(integers.scale.shape)[used] for end in grid.range)
    return (lowest.min().item(), highest.max().item()) if used.any() else (0.0, 0.0)


def _activation_range(quantizer: ActivationQuantizer) -> Range:
    grid, low, high = quantizer.grid(), quantizer.low.clamp(max=0), quantizer.high.clamp(min=0)
    if high - low >= torch.finfo(low.dtype).tiny * 2**grid.bits:  # or there is nothing to lay a grid over
        low, high = grid.range
    return low.item(), high.item()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _draw_range(found: Range | None) -> str:
    return "" if found is None else f"{found[0]:.2g}…{found[1]:.2g}"


def _draw_ratio(decibels: float | None) -> str:
    return "" if decibels is None else f"{decibels:.0f}"
