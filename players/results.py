"""A quantized network as what a run leaves behind (``zerosum.results``)."""

from pathlib import Path

import torch
from torch import nn

from players.export.command import ExportOptions, export
from players.sections import sections
from players.storage import QUANTIZED, load_quantized

__all__ = ["ExportOptions", "export", "load", "sections"]


def load(folder: Path, device: torch.device | str) -> nn.Module:
    """The quantized network in a run's folder; see :func:`players.load_quantized`."""
    return load_quantized(folder / QUANTIZED, device)
