"""What images a network is best reconstructed on: ``python -m benchmarks.reconstruction`` prints a table.

Every row is a recipe played to its end with each seed; the network that it leaves behind is loaded, and measured. Real
images (``--real``) show what is to be had at most: that row, and none other, learns from every second of them, and all
rows are then measured on the rest.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from zerosum import Match
from zerosum.memory import keep_freed_memory
from zerosum.players import QUANTIZED, Scheme, accuracy, batch_that_fits, load_data, load_quantized, predict
from zerosum.randomness import seed_all
from zerosum.recipes import adasg, reconstruction
from zerosum.recipes.common.data_free import DataFreeOptions, pair_of
from zerosum.runs import Experiment

Loader = DataLoader[tuple[Tensor, Tensor]]
_HEADER = ("", "top-1", "±", "seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(reconstruction.Config):
    """What all rows have in common; ``images`` and ``seed`` are each row's own."""

    data: str | None = "digits"
    """Real images, for measuring only, where --real is not given."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every row is played with each."""
    real: str | None = None
    """Real images, "digits" or a folder with one folder a class: of each two, the first is measured on, and the second
    is for the row that learns from them."""
    only: tuple[str, ...] = ("",)
    """Rows whose names have one of these in them, such as noise or game."""


class Row(NamedTuple):
    """A name, and what makes the experiment of a seed."""

    name: str
    make: Callable[[int], Experiment]


def rows(options: Options, learned_from: Loader | None) -> Iterator[Row]:
    """From the least to the most that is done."""

    def reconstructed(**changes: Any) -> Callable[[int], Experiment]:
        return lambda seed: reconstruction.recipe(_of(reconstruction.Config, options, seed=seed, **changes))

    minmax = dataclasses.replace(options.scheme, weight_range="minmax", activation_range="ema")
    yield Row("rounding (minmax, ema)", reconstructed(rounds=0, scheme=minmax))
    yield Row(f"ranges ({_ranges(options.scheme)})", reconstructed(rounds=0))
    yield Row("reconstruction on noise", reconstructed(images="noise"))
    yield Row("… on leaves", reconstructed(images="leaves"))
    yield Row("… on a generator's images", reconstructed(images="generator"))
    yield Row("… on pixels (ZeroQ)", reconstructed(images="pixels"))
    yield Row("… on latents (Genie-D)", reconstructed(images="latents"))
    if learned_from is not None:
        yield Row("… on real images (bound)", lambda seed: _on_real(learned_from, options, seed))
    for name, renewals in (
        ("reconstruction on generated images, and the game", 0),
        ("… with the pool renewed once", 1),
    ):
        yield Row(name, _played(options, renewals))


def _played(options: Options, renewals: int) -> Callable[[int], Experiment]:
    return lambda seed: adasg.recipe(_of(adasg.Config, options, seed=seed, rounds=None, renewals=renewals))


def _on_real(loader: Loader, options: Options, seed: int) -> Experiment:
    config = _of(reconstruction.Config, options, seed=seed, images="noise")  # there at once, like these
    pair = pair_of(config)
    count = config.plan(pair.teacher, pair.space).pool
    chosen = torch.randperm(len(loader.dataset))[:count].tolist()  # type: ignore[arg-type]  # a Subset has a length
    return reconstruction.experiment_on(torch.stack([loader.dataset[i][0] for i in chosen]), pair, config)


def _of(config: Any, options: Options, **changes: Any) -> Any:
    """The options that are a recipe's too, with changes; nothing is measured on the way."""
    names = [field.name for field in dataclasses.fields(config) if field.init]
    taken = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return config(**(taken | {"data": None} | changes))


def _ranges(scheme: Scheme) -> str:
    return f"{scheme.weight_range}, {scheme.activation_range}"


def measure(
    make: Callable[[int], Experiment], seed: int, loader: Loader, options: DataFreeOptions
) -> tuple[float, float]:
    """Top-1 in percent of what an experiment leaves behind, and the seconds that it took."""
    seed_all(seed)
    started = time.perf_counter()
    experiment = make(seed)
    matches: dict[str, Match] = {}
    for name in experiment.stages:
        matches[name] = experiment.begin(name, matches, seed).match
        matches[name].play()
    seconds = time.perf_counter() - started
    assert experiment.finish is not None
    with tempfile.TemporaryDirectory() as folder:
        experiment.finish(matches, Path(folder))
        network = load_quantized(Path(folder) / QUANTIZED, options.torch_device)
    return accuracy(*predict(network, loader, options.torch_device))["top1"], seconds


def halves(options: Options) -> tuple[Loader, Loader | None]:
    """What is measured on, and what one row may learn from."""
    teacher = pair_of(options).teacher
    size = batch_that_fits(teacher)
    if options.real is None:
        return load_data(options.data or "digits", teacher, size), None
    images = TensorDataset(*map(torch.cat, zip(*load_data(options.real, teacher, size), strict=True)))
    parts = [Subset(images, range(start, len(images), 2)) for start in (0, 1)]
    measured, learned = (DataLoader(part, size, generator=torch.Generator()) for part in parts)
    return measured, learned


def main(options: Options) -> None:
    """Print a line of Markdown for each row as soon as it is there, and the whole as a table."""
    keep_freed_memory()
    options.check()
    measured_on, learned_from = halves(options)
    table = Table(*_HEADER, title=f"{options.backbone} at {options.bits}, {len(measured_on.dataset)} images")  # type: ignore[arg-type]
    print(f"| {' | '.join(_HEADER)} |\n|{'---|' * len(_HEADER)}", flush=True)
    for row in rows(options, learned_from):
        if not any(part in row.name for part in options.only):
            continue
        with redirect_stdout(sys.stderr):  # what recipes say on the way
            found = [measure(row.make, seed, measured_on, options) for seed in options.seeds]
        top1, seconds = zip(*found, strict=True)
        deviation = f"{statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
        cells = (row.name, f"{statistics.mean(top1):.1f}", deviation, f"{statistics.mean(seconds):.0f}")
        print(f"| {' | '.join(cells)} |", flush=True)
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
