"""``python -m zerosum.compare RUN_DIR ...``: finished runs side by side, those that differ in their seed alone as one.

Prints a table of their figures (mean ± standard deviation over seeds), and keeps it with an overlay of their curves.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from zerosum.runs import run_folder
from zerosum.runs.curves import STEP_SIZE, Curve, panels
from zerosum.runs.files import write_whole
from zerosum.runs.inputs import expand
from zerosum.runs.messages import flag, guarded, output, printable, refuse
from zerosum.runs.options import MAY_DIFFER, flat
from zerosum.runs.watchers.journal import read as read_journal

TABLE, CURVES = "compare.csv", "compare.png"
_NOT_ASKED = MAY_DIFFER | {"seed", "out", "resume"}  # options that make no other run


@dataclass(frozen=True)
class Options:
    """Compare finished runs: a table of their figures, and an overlay of their curves. Runs that differ in their seed
    alone are taken together."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of the runs."""
    out: Path | None = None
    """Folder for compare.csv and compare.png. Default: runs/compare-<date>-<time>."""


class Group(NamedTuple):
    """Runs that differ in their seed alone: figures of each by name, and journals."""

    name: str
    figures: list[dict[str, float]]
    journals: list[list[dict[str, Any]]]


def read_groups(folders: Sequence[Path]) -> list[Group]:
    """The runs in ``folders``, by what they were asked.

    Raises:
        FileNotFoundError: no run there.
        ValueError: no folder at all, a run is not finished, or a file of it cannot be read.
    """
    if not folders:
        raise ValueError("compare: expected one run's folder or more")
    asked: dict[str, dict[str, Any]] = {}
    members: dict[str, list[Path]] = {}
    for folder in folders:
        config = run_folder.read_config(folder)
        options = {name: value for name, value in config["options"].items() if name not in _NOT_ASKED}
        key = json.dumps([config["recipe"], options], sort_keys=True)
        asked[key] = {"recipe": config["recipe"]} | flat(options)
        members.setdefault(key, []).append(folder)
    return [
        Group(
            name,
            [dict(_numbers(run_folder.read_summary(folder))) for folder in members[key]],
            [_journal(folder) for folder in members[key]],
        )
        for key, name in zip(asked, _names(list(asked.values())), strict=True)
    ]


def _names(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """By the options in which the groups differ."""
    keys = dict.fromkeys(key for options in asked for key in options)
    differing = [key for key in keys if len({json.dumps(options.get(key)) for options in asked}) > 1]
    if not differing:
        return [str(asked[0]["recipe"])]
    words = {key: flag(key).removeprefix("--") for key in differing}
    return [printable(", ".join(f"{words[key]} {options.get(key)}" for key in differing)) for options in asked]


def _numbers(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((prefix + name, value))
    return found


def _journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / run_folder.METRICS
    return read_journal(path) if path.exists() else []  # of several stages each has one


def rows(groups: Sequence[Group]) -> list[list[str]]:
    """A line for each figure, of as many columns as there are groups and one."""
    names = dict.fromkeys(name for group in groups for figures in group.figures for name in figures)
    lines = [["runs", *(str(len(group.figures)) for group in groups)]]
    for name in names:
        values = ([figures[name] for figures in group.figures if name in figures] for group in groups)
        lines.append([name, *map(_mean_and_deviation, values)])
    return lines


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, deviation = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    if deviation == 0 or not math.isfinite(deviation):
        return f"{mean:.6g}"
    decimals = max(0, 1 - math.floor(math.log10(deviation)))  # two digits of the deviation
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def draw(groups: Sequence[Group], path: Path) -> None:
    """Payoff, what the criterion found, and what was measured, of all groups: means over seeds, ± one deviation."""
    drawn = [[_curves(journal) for journal in group.journals] for group in groups]
    names = list(dict.fromkeys(name for runs in drawn for curves in runs for name in curves))
    height = max(1, -(-len(names) // 2))
    figure = Figure(figsize=(11, 3 * height), layout="constrained")
    axes = figure.subplots(height, 2, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        for group, runs in zip(groups, drawn, strict=True):
            _overlay(axis, group.name, [curves[name] for curves in runs if name in curves])
        axis.set(title=name, xlabel="round")
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.axis("off")
    if len(groups) > 1 and names:
        axes[0].legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_whole(path, content.getvalue())


def _curves(journal: Sequence[dict[str, Any]]) -> dict[str, Curve]:
    shown = (panel.curves for panel in panels(journal) if panel.title != STEP_SIZE)
    return {curve.label: curve for curves in shown for curve in curves if curve.rounds}


def _overlay(axis: Axes, label: str, curves: Sequence[Curve]) -> None:
    if not curves:
        return
    first, last = max(curve.rounds[0] for curve in curves), min(curve.rounds[-1] for curve in curves)
    rounds = [round for round in curves[0].rounds if first <= round <= last]
    values = np.array([np.interp(rounds, curve.rounds, curve.values) for curve in curves])
    mean = values.mean(axis=0)
    (line,) = axis.plot(rounds, mean, linewidth=1.2, label=label)
    if len(curves) > 1:
        deviation = values.std(axis=0, ddof=1)
        axis.fill_between(rounds, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input."""
    parse: Any = tyro.cli
    options: Options = parse(Options, args=arguments, prog="python -m zerosum.compare")
    console = output()
    try:
        groups = read_groups([expand(folder) for folder in options.run_dirs])
        out = expand(options.out) if options.out is not None else run_folder.new_folder("compare")
        out.mkdir(parents=True, exist_ok=True)
        header, lines = ["", *(group.name for group in groups)], rows(groups)
        content = io.StringIO(newline="")
        csv.writer(content).writerows([header, *lines])
        write_whole(out / TABLE, content.getvalue().encode())
        draw(groups, out / CURVES)
    except (ValueError, OSError) as error:
        return refuse(error)
    table = Table(*header)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(f"kept in {out}", soft_wrap=True)
    return 0
