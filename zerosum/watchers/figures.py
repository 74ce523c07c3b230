"""The picture of a match: its payoff, what its criterion reported, and what was measured, over the rounds."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_PANELS = {  # of figures that belong side by side; any other has a panel to itself
    "gain": "change of payoff on the probe",
    "drop": "change of payoff on the probe",
    "balance_gap": "Balance Gap",
    "balance_gap_mean": "Balance Gap",
}
_NOT_JUDGED = {"round", "payoff", "losses", "stationary", "measured"}


def draw_game(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw a journal's lines to a PNG file; a dotted line marks where a player came in that had sat out."""
    judged = {name for line in lines for name in line} - _NOT_JUDGED
    panels: dict[str, list[str]] = {}
    for name in sorted(judged, key=[*_PANELS, *sorted(judged)].index):
        panels.setdefault(_PANELS.get(name, name), []).append(name)
    measurements = [(line["round"], line["measured"]) for line in lines if line.get("measured")]

    count = 1 + len(panels) + bool(measurements)
    figure = Figure(figsize=(9, 2.75 * count), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    _draw_payoff(axes[0], lines)
    for axis, (title, names) in zip(axes[1:], panels.items(), strict=False):
        for name in names:
            _curve(axis, lines, name, marker=".", label=name.replace("_", " "))
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_ylabel(title.replace("_", " "))
    if measurements:
        for name in measurements[0][1]:
            axes[-1].plot([r for r, _ in measurements], [m[name] for _, m in measurements], marker=".", label=name)
        axes[-1].set_ylabel("measured")
    axes[-1].set_xlabel("round")

    first_moves = {player: line["round"] for line in reversed(lines) for player in line.get("losses", ())}
    for axis in axes:
        for entry in set(first_moves.values()) - {1}:
            axis.axvline(entry, color="grey", linestyle=":", linewidth=1)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(loc="best", fontsize="small")
    figure.savefig(path, dpi=110)


def _draw_payoff(axis: Axes, lines: list[dict[str, Any]]) -> None:
    _curve(axis, lines, "payoff", alpha=0.3, label="each round")
    played = [(line["round"], line["payoff"]) for line in lines if line.get("payoff") is not None]
    if len(played) >= 50:
        width = max(len(played) // 50, 5)
        smooth = [sum(v for _, v in played[i : i + width]) / width for i in range(len(played) - width + 1)]
        axis.plot([r for r, _ in played[width - 1 :]], smooth, label=f"mean of {width}", color="C0")
    axis.set_ylabel("payoff")


def _curve(axis: Axes, lines: list[dict[str, Any]], key: str, **style: Any) -> None:
    points = [(line["round"], line[key]) for line in lines if line.get(key) is not None]
    axis.plot([round for round, _ in points], [value for _, value in points], **style)
