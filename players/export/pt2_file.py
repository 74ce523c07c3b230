"""A program of integers for ``torch.export.load``."""

from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram


def save_pt2(program: ExportedProgram, path: Path) -> None:
    """Write the program in PyTorch's own operators, so that PyTorch alone loads it."""
    operators = torch.ops.zerosum
    plain = {operators.dequantize.default: _dequantize, operators.round_to_grid.default: _round_to_grid}
    torch.export.save(program.run_decompositions(plain), path)


def _dequantize(levels: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return scale * (levels.float() - zero_point.float())


def _round_to_grid(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    return (x * (1 / scale)).round().clamp(-zero_point, 2**bits - 1 - zero_point) * scale
