"""A quantized network as what a run leaves behind (``zerosum.runs.results``)."""

from pathlib import Path

import torch
from torch import nn

from zerosum.players.export.command import ExportOptions, export
from zerosum.players.sections import sections
from zerosum.players.storage import QUANTIZED, load_quantized

__all__ = ["ExportOptions", "export", "load", "sections"]


def load(folder: Path, device: torch.device | str, into: nn.Module | None = None, trust: bool = False) -> nn.Module:
    """The quantized network in a run's folder; see :func:`zerosum.players.load_quantized`."""
    return load_quantized(folder / QUANTIZED, device, into, trust)
