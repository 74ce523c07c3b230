"""The figure: accuracy over seconds, methods side by side."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosum.runs.files import write_whole

if TYPE_CHECKING:
    from benchmarks.league.page import Standing

_SHOWN = 15.0  # points below the best; what is further below is in the legend alone
_MARKS = "osD^vP*X"


def draw(columns: Mapping[str, Sequence["Standing"]], path: Path) -> bool:
    """A panel for each column, a point for each method, with its standard deviation over seeds; False where there are
    none."""
    if not columns:
        return False
    methods = sorted({standing.method for found in columns.values() for standing in found})
    figure = Figure(figsize=(8, 4.5 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), squeeze=False).flatten()
    for axis, (name, found) in zip(axes, columns.items(), strict=True):
        _panel(axis, found, methods)
        axis.set(title=name, xlabel="seconds", ylabel="top-1, %")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_whole(path, content.getvalue())
    return True


def _panel(axis: Axes, found: Sequence["Standing"], methods: Sequence[str]) -> None:
    best = found[0].top1.mean
    for standing in found:
        number, top1, seconds = methods.index(standing.method), standing.top1, standing.seconds or 0.0
        deviation = 0.0 if math.isnan(top1.deviation) else top1.deviation
        label = f"{top1.mean:.1f}  {standing.method}" + (" (below)" if top1.mean < best - _SHOWN else "")
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "marker": _MARKS[number % len(_MARKS)],
            "capsize": 3,
            "linestyle": "none",
        }
        axis.errorbar(seconds, top1.mean, deviation, label=label, **style)
    lowest, _ = axis.get_ylim()
    axis.set_ylim(bottom=max(lowest, best - _SHOWN))
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
