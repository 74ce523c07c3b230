"""What a report shows of a quantized network, from the files that its run left behind."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosum.players.blocks import BLOCKS
from zerosum.players.examination import CLASSES, STAGES
from zerosum.players.storage import QUANTIZED, Description, read_description

_NAMED = 24  # layers or blocks; of more, the figure has numbers
_CLASSES = 10

Section = tuple[str, str, Figure | list[dict[str, Any]]]


def sections(folder: Path) -> list[Section]:
    """(title, text, figure or rows of a table) of a finished run."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    sizes = summary["float_bytes"], summary["quantized_bytes"]
    size = f"{sizes[0] / 1e6:.2f} MB in float32, {sizes[1] / 1e6:.2f} MB as stored ({sizes[1] / sizes[0]:.3f} of it)."
    found: list[Section] = []
    if summary["after_top1"] is None:
        found.append(("Accuracy", f"Not measured: the run had no --data. {size}", []))
    else:
        text = f"Percent of {summary['images']} images, in brackets 95 % intervals. {size}"
        found.append(("Accuracy", text, _accuracy(summary)))
    found.append(_network(read_description(folder / QUANTIZED)))
    if (folder / BLOCKS).exists() and (rows := _rows(folder / BLOCKS)):
        found.append(_blocks([row for row in rows if row["answer"] == rows[-1]["answer"]]))
    found.append(_noise(folder / "layers.csv"))
    if (folder / CLASSES).exists():
        found.append(_classes(folder / CLASSES))
    return found


def _network(described: Description) -> Section:
    space, names = described.space, described.class_names
    said = {
        "built as": described.architecture.name,
        "channels × height × width": f"{space.channels} × {space.size[0]} × {space.size[1]}",
        "mean of pixels in 0 to 1": ", ".join(f"{value:g}" for value in space.mean),
        "their standard deviation": ", ".join(f"{value:g}" for value in space.std),
    }
    if names is not None:
        said[f"{len(names)} classes"] = ", ".join(names[:_CLASSES]) + (", …" if len(names) > _CLASSES else "")
    text = "How it is built, the images that it takes, and what its classes are called where that is known."
    return "The network", text, [{"": name, "network": value} for name, value in said.items()]


def _accuracy(summary: dict[str, Any]) -> list[dict[str, Any]]:
    def share(key: str) -> str:
        low, high = summary["intervals"][key]
        return f"{summary[key]:.1f} ({low:.1f}–{high:.1f})"

    return [
        {
            "": name,
            "top-1": share(f"{key}_top1"),
            "top-5": share(f"{key}_top5"),
            "agreement": share("agreement") if key == "after" else "",
        }
        for key, name in STAGES.items()
        if f"{key}_top1" in summary
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _dots(names: list[str], what: str, series: dict[str, list[float]]) -> tuple[Figure, Axes]:
    """A row of dots for each name, from the input on, a colour for each of the series."""
    named = len(names) <= _NAMED
    figure = Figure(figsize=(5.4, max(2.6, 0.22 * len(names)) if named else 4), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(names))
    for label, values in series.items():
        axis.plot(values, places, "o", markersize=4, label=label)
    if named:
        axis.set_yticks(places, names, fontsize=8)
    else:
        axis.set_ylabel(f"{what}, from the input on")
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure, axis


def _blocks(rows: list[dict[str, str]]) -> Section:
    series = {key: [float(row[key]) for row in rows] for key in ("before", "after")}
    figure, axis = _dots([row["block"] for row in rows], "block", series)
    axis.set_xscale("log")
    axis.set_xlabel("mean squared error, as a share of the output's variance")
    worst = max(rows, key=lambda row: float(row["after"]))
    text = "What a block's rounding changes in its output, on the images it was reconstructed on, before and after."
    return "Reconstruction by block", f"{text} The largest error left is that of {worst['block']}.", figure


def _noise(path: Path) -> Section:
    rows = [row for row in _rows(path) if row["bits"]]
    series = {
        label: [float(row[key]) if row[key] else np.nan for row in rows]
        for key, label in (("weight_sqnr", "weight"), ("activation_sqnr", "input"))
    }
    figure, axis = _dots([row["layer"] for row in rows], "layer", series)
    axis.set_xlabel("signal-to-noise ratio (dB)")
    lowest = min((row for row in rows if row["weight_sqnr"]), key=lambda row: float(row["weight_sqnr"]), default=None)
    text = (
        "What is left of each layer's trained weight after learning and rounding, and of its input after rounding, on "
    )
    text += "generated images; 6 dB are about one bit."
    if lowest is not None:
        ratio = f"{float(lowest['weight_sqnr']):.1f} dB"
        text += f" The weight farthest from the trained one is {lowest['layer']}'s ({lowest['bits']}, {ratio})."
    return "Signal-to-noise by layer", text, figure


def _classes(path: Path) -> Section:
    rows = _rows(path)
    lost = {row["name"]: float(row["full_precision"]) - float(row["quantized"]) for row in rows}
    worst = sorted(rows, key=lambda row: -lost[row["name"]])[:_CLASSES]
    table = [
        {
            "class": row["name"],
            "images": row["images"],
            "full precision": f"{float(row['full_precision']):.1f}",
            "quantized": f"{float(row['quantized']):.1f}",
            "lost": f"{lost[row['name']]:.1f}",
        }
        for row in worst
        if lost[row["name"]] > 0
    ]
    text = "Top-1 in percent, by class; all classes are in classes.csv." if table else "No class lost any."
    return "Classes that lost most", text, table
