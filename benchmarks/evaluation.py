"""What workers are worth when a network is measured: ``python -m benchmarks.evaluation --data FOLDER``.

The pictures of an image folder, scaled and repeated, are seen by a network with no workers and with some, in turns; and
read by nobody, which says what two processes are worth on the machine at most.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from rich.console import Console

from zerosum.memory import keep_freed_memory
from zerosum.players import load_backbone, load_data, predict
from zerosum.players.progress import silent


@dataclass(frozen=True)
class Options:
    """Print seconds of a pass over the images without workers and with them, in turns."""

    data: Path
    """An image folder, one folder a class."""
    backbone: str = "mobilenetv3_small_050"
    """The network, with random weights; a small one, so that reading bounds."""
    images: int = 2000
    """How many, by repetition."""
    longest: int | None = 500
    """Pixels that the longer side of each is scaled to first, JPEG of quality 92; ImageNet's most frequent. None: the
    files as they are."""
    workers: int = 2
    """Processes that read."""
    turns: int = 3
    """Passes of each."""


def repeated(data: Path, images: int, longest: int | None, folder: Path) -> None:
    """The pictures in ``data``, scaled, and links to them, as often as there have to be for so many."""
    found = sorted(path for path in data.glob("*/*") if path.is_file())[:images]
    for number in range(images):
        original = found[number % len(found)]
        name = original.name if longest is None else f"{original.stem}.jpg"
        place = folder / original.parent.name / f"{number // len(found)}-{name}"
        place.parent.mkdir(exist_ok=True)
        if longest is None:
            place.symlink_to(original.resolve())
        elif number >= len(found):
            place.symlink_to(place.with_name(f"0-{name}"))
        else:
            with Image.open(original) as picture:
                share = longest / max(picture.size)
                size = round(share * picture.width), round(share * picture.height)
                picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(place, quality=92)


def main(options: Options) -> None:
    """Print the table."""
    keep_freed_memory()
    console = Console(soft_wrap=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_backbone(options.backbone, "random", device=device)
    found: dict[int, list[float]] = {0: [], options.workers: []}
    alone: dict[int, list[float]] = {0: [], options.workers: []}
    with tempfile.TemporaryDirectory() as temporary, silent():
        repeated(options.data, options.images, options.longest, Path(temporary))
        for _ in range(options.turns):
            for workers, seconds in found.items():
                loader = load_data(temporary, network, 64, workers=workers)
                started = time.perf_counter()
                seen, _ = predict(network, loader, device)
                seconds.append(time.perf_counter() - started)
                assert len(seen) == options.images
                started = time.perf_counter()
                for _batch in loader:
                    pass
                alone[workers].append(time.perf_counter() - started)
    console.print(
        f"| workers | images | seconds, least to most | times as fast | reading alone | times as fast |\n|{'---|' * 6}"
    )
    for workers in found:
        cells = [cell for of in (found, alone) for cell in (_range(of[workers]), _times(of[0], of[workers]))]
        console.print(f"| {workers} | {options.images} | {' | '.join(cells)} |")


def _range(seconds: list[float]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f}"


def _times(before: list[float], after: list[float]) -> str:
    return f"{min(before) / min(after):.2f}"


if __name__ == "__main__":
    main(tyro.cli(Options))
