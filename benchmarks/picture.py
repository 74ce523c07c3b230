"""A run at a glance, README's first picture: ``python -m benchmarks.picture RUN_DIR docs/run.png`` draws what the
generator came to, the accuracy, and the curves of a finished run that measured."""

import json
import re
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

from zerosum.players.sections import sections
from zerosum.runs import run_folder
from zerosum.runs.curves import draw_panel, marks, panels
from zerosum.runs.hub import without_paths
from zerosum.runs.watchers.journal import read as read_journal
from zerosum.runs.watchers.pictures import drawn

_PANELS = ("payoff", "Balance Gap", "measured")


def draw(folder: Path, path: Path) -> None:
    """Draw the run in ``folder`` to a PNG file."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.05, 1))
    shown = re.sub(r" --out \S+", "", without_paths(run_folder.read_config(folder)))  # wherever it was kept
    figure.suptitle(shown, family="monospace", fontsize=10)

    samples, table = left.subplots(2, 1, height_ratios=(2.4, 1))
    pictures = drawn(folder)
    samples.imshow(imread(pictures[max(pictures)]), aspect="equal")
    samples.set_title("what the generator invented (label → what the network sees)", fontsize=10)
    title, text, rows = sections(folder)[0]
    assert title == "Accuracy"
    assert isinstance(rows, list)
    cells = [list(map(str, row.values())) for row in rows]
    drawn_table = table.table(cells, colLabels=list(rows[0]), loc="center", cellLoc="left", edges="horizontal")
    drawn_table.scale(1, 1.5)
    drawn_table.auto_set_column_width(range(len(rows[0])))
    table.set_title(text, fontsize=10, wrap=True)
    for axis in (samples, table):
        axis.axis("off")

    lines = read_journal(folder / run_folder.METRICS)
    found = {panel.title: panel for panel in panels(lines)}
    axes = right.subplots(len(_PANELS), 1, sharex=True)
    for axis, name in zip(axes, _PANELS, strict=True):
        draw_panel(axis, found[name], marks(lines))
    axes[-1].set_xlabel("round")
    figure.savefig(path, dpi=90, pil_kwargs={"optimize": True})


def main(arguments: list[str]) -> None:
    """Draw one."""
    folder, path = map(Path, arguments)
    if json.loads((folder / run_folder.SUMMARY).read_text(encoding="utf-8"))["after_top1"] is None:
        raise SystemExit(f"{folder}: expected a run that measured on --data")
    draw(folder, path)


if __name__ == "__main__":
    main(sys.argv[1:])
