"""Images that no method learns from, and no person took: step sizes are chosen by them."""

import hashlib
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch
from filelock import FileLock
from safetensors.torch import load, save
from torch import Tensor, nn

from benchmarks.league.rows import BATCH, Column
from zerosum.objectives import half_variance
from zerosum.recipes import adasg
from zerosum.recipes.common.data_free import pair_of
from zerosum.recipes.common.synthesis import Synthesis, synthesis_prior
from zerosum.runs.files import write_whole

_SEED = 1000  # of no cell


class HeldOut(NamedTuple):
    """Images (N, channels, height, width) in normalised input space, and logits (N, C) of full precision."""

    images: Tensor
    logits: Tensor

    @torch.no_grad()
    def measure(self, network: nn.Module) -> tuple[float, float]:
        """Half the variance of how far a network's logits are from these, a mean; and the share of images, in percent,
        that it takes for the same class."""
        logits = _run(network, self.images)
        same = (logits.argmax(dim=1) == self.logits.argmax(dim=1)).double().mean().item()
        return half_variance(self.logits, logits).mean().item(), 100 * same


def held_out(column: Column, files: dict[str, str], folder: Path) -> HeldOut:
    """Those of a column's network, made at the first call and kept in the folder."""
    named = _weights(column, files)
    weights = Path(named).read_bytes() if named and Path(named).exists() else (named or "").encode()
    mark = f"-{hashlib.sha256(weights).hexdigest()[:8]}" if weights else ""
    path = folder / f"held-out-{column.backbone}{mark}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            write_whole(path, save(_make(column, files)._asdict()))
        return HeldOut(**load(path.read_bytes()))


def _make(column: Column, files: dict[str, str]) -> HeldOut:
    weights, (count, rounds) = _weights(column, files), column.held_out
    pair = pair_of(adasg.Config(backbone=column.backbone, weights=weights, bits=column.bits, seed=_SEED))
    images = Synthesis(pair, synthesis_prior(pair.teacher), rounds, BATCH).generator(count).images
    with torch.no_grad():
        return HeldOut(images.cpu().contiguous(), _run(pair.teacher, images).cpu())


def _weights(column: Column, files: dict[str, str]) -> str | None:
    """As the commands name them."""
    options = dict(zip(column.options[::2], column.options[1::2], strict=True))
    return Template(options["--weights"]).substitute(files) if options else None


def _run(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(images, 2 * BATCH)])
