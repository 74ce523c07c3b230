"""What an exported file does, beside the network that it was made of."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zerosum.players.backbones import input_space
from zerosum.players.examination import percent
from zerosum.players.export.program import trace
from zerosum.players.loaders import number_of_batches
from zerosum.players.progress import progress

Runs: TypeAlias = Callable[[Tensor], Tensor]  # images (N, channels, height, width) → logits (N, classes)

_RANDOM_IMAGES = 64
_TURNS = 40


class Report(NamedTuple):
    """Percentages, seconds and bytes; ``top1`` of the network in PyTorch and of the exported file is None where images
    are random, ``kernels`` (how many of each the file runs as) where it is a program of torch.export."""

    agreement: float
    largest_difference: float
    top1: tuple[float, float] | None
    seconds: tuple[float, float]
    size: tuple[int, int]
    kernels: dict[str, int] | None
    threads: int

    @property
    def figures(self) -> dict[str, Any]:
        """For export.json."""
        return {
            "agreement": self.agreement,
            "largest_logit_difference": self.largest_difference,
            "pytorch_top1": self.top1[0] if self.top1 else None,
            "exported_top1": self.top1[1] if self.top1 else None,
            "float32_seconds": self.seconds[0],
            "exported_seconds": self.seconds[1],
            "float32_bytes": self.size[0],
            "exported_bytes": self.size[1],
            "kernels": self.kernels,
            "threads": self.threads,
        }

    def draw(self) -> RenderableType:
        """For people to read."""
        faster, smaller = self.seconds[0] / self.seconds[1], self.size[1] / self.size[0]
        table = Table("", "float32 file", "quantized file", "quantized : float32")
        milliseconds = (f"{1e3 * seconds:.2f}" for seconds in self.seconds)
        table.add_row(f"ms an image ({self.threads} threads)", *milliseconds, f"{faster:.2f} times as fast")
        table.add_row("kB", *(f"{size / 1e3:,.1f}" for size in self.size), f"{smaller:.3f} of the size")
        lines = [f"agreement with PyTorch: {self.agreement:.2f} % of images"]
        lines.append(f"largest difference of a logit: {self.largest_difference:.3g}")
        if self.top1 is not None:
            lines.append(f"top-1: {self.top1[1]:.2f} %; in PyTorch {self.top1[0]:.2f} %")
        if self.kernels is not None:
            lines.append("runs as " + ", ".join(f"{count} {name}" for name, count in self.kernels.items()))
        return Group(table, *lines)


def compare(path: Path, network: nn.Module, twin: nn.Module, loader: DataLoader[Any] | None, opset: int) -> Report:
    """Compare an exported file with the quantized network, on the images of ``loader`` or on random ones; and with a
    file of ``twin``, the same in float32, for speed and size."""
    space = input_space(network)
    noise = torch.randn(_RANDOM_IMAGES, space.channels, *space.size, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / f"float32{path.suffix}"
        save_plain(twin, noise[:2], opset, plain)
        runs, kernels = _load(path)
        float_runs = twin if path.suffix == ".pt2" else _load(plain)[0]
        seconds = median_seconds((float_runs, runs), noise[:1])
        size = plain.stat().st_size, path.stat().st_size
    batches = loader if loader is not None else [(noise, None)]
    ours, theirs, labels = [], [], []
    with torch.no_grad():
        for images, known in progress(batches, "comparing", 1 if loader is None else number_of_batches(loader)):
            ours.append(network(images))
            theirs.append(runs(images))
            labels.append(known)
    expected, found = torch.cat(ours), torch.cat(theirs)
    classes = expected.argmax(dim=1), found.argmax(dim=1)
    top1 = None
    if loader is not None:
        known = torch.cat(labels)
        top1 = percent(classes[0] == known), percent(classes[1] == known)
    difference = (expected - found).abs().max().item()
    agreement = percent(classes[0] == classes[1])
    return Report(agreement, difference, top1, seconds, size, kernels, torch.get_num_threads())


def save_plain(network: nn.Module, images: Tensor, opset: int, path: Path) -> None:
    """Write an ordinary network, by the path's suffix, the same way as a quantized one."""
    if path.suffix == ".onnx":
        from zerosum.players.export.onnx_file import save_float_onnx

        save_float_onnx(network, images, opset, path)
    elif path.suffix == ".pte":
        from zerosum.players.export.pte_file import save_pte

        save_pte(trace(network, images[:1]), path)
    else:
        torch.export.save(trace(network, images.clone()), path)  # of a part alone, all would be saved


def _load(path: Path) -> tuple[Runs, dict[str, int] | None]:
    """A file by its suffix, in its runtime; and how many kernels of each kind it runs as."""
    if path.suffix == ".onnx":
        from zerosum.players.export.onnx_file import load_onnx

        return load_onnx(path)
    if path.suffix == ".pte":
        from zerosum.players.export.pte_file import load_pte

        return load_pte(path)
    return _load_pt2(path), None


def _load_pt2(path: Path) -> Runs:
    """The program, of one image at a time where it is made for one."""
    program = torch.export.load(path)
    run: Any = program.module()
    (image,), _ = program.example_inputs or ((None,), {})
    return run if image is None or len(image) > 1 else lambda images: torch.cat([run(each[None]) for each in images])


@torch.no_grad()
def median_seconds(runs: tuple[Runs, Runs], image: Tensor) -> tuple[float, float]:
    """What each takes, turn about, after a few turns that do not count."""
    taken: NDArray[np.float64] = np.empty((_TURNS, 2))
    for turn in range(_TURNS):
        for which, run in enumerate(runs):
            started = time.perf_counter()
            run(image)
            taken[turn, which] = time.perf_counter() - started
    first, second = np.median(taken[_TURNS // 8 :], axis=0)
    return float(first), float(second)
