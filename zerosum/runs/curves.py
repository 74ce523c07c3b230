"""What a journal tells, as curves over the rounds: payoff, what the criterion reported, measurements, step sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP_SIZE = "step size"
_PANELS = {  # of figures that belong side by side; any other has a panel to itself
    "gain": "change of payoff on the probe",
    "drop": "change of payoff on the probe",
    "balance_gap": "Balance Gap",
    "balance_gap_mean": "Balance Gap",
}
_NOT_JUDGED = {"round", "payoff", "losses", "stationary", "measured", "step_sizes"}
_POINTS = 300  # of a curve; more are taken together
_DROP, _STEADY = 0.7, 0.95  # a step size falls at once: to this or less, from where it hardly moved


class Curve(NamedTuple):
    """Values over rounds; where there are many, means over neighbours, and their least and greatest."""

    label: str
    rounds: list[float]
    values: list[float]
    low: list[float]
    high: list[float]


class Panel(NamedTuple):
    """Curves that belong side by side."""

    title: str
    curves: list[Curve]


class Mark(NamedTuple):
    """A round from which on something is different."""

    round: int
    what: str


def panels(lines: Sequence[dict[str, Any]]) -> list[Panel]:
    """The panels of a journal's lines, the payoff first."""
    found: dict[str, list[Curve]] = {
        "payoff": [_curve("payoff", [(line["round"], line.get("payoff")) for line in lines])]
    }
    judged = {name for line in lines for name in line} - _NOT_JUDGED
    for name in sorted(judged, key=[*_PANELS, *sorted(judged)].index):
        curve = _curve(name.replace("_", " "), [(line["round"], line.get(name)) for line in lines])
        found.setdefault(_PANELS.get(name, name.replace("_", " ")), []).append(curve)
    for key, title in (("measured", "measured"), ("step_sizes", STEP_SIZE)):
        names = list(dict.fromkeys(name for line in lines for name in line.get(key, ())))
        curves = [_curve(name, [(line["round"], line.get(key, {}).get(name)) for line in lines]) for name in names]
        if key == "measured" or any(len(set(curve.values)) > 1 for curve in curves):
            found[title] = curves
    drawn = {title: [curve for curve in curves if curve.rounds] for title, curves in found.items()}
    return [Panel(title, curves) for title, curves in drawn.items() if curves] or [Panel("payoff", found["payoff"])]


def marks(lines: Sequence[dict[str, Any]]) -> list[Mark]:
    """Where players came in that had sat out, and where step sizes fell at once."""
    found: list[Mark] = []
    newest: dict[str, float] = {}
    change: dict[str, float] = {}
    for line in lines:
        for player, size in line.get("step_sizes", {}).items():
            if player not in newest and line["round"] > 1:
                found.append(Mark(line["round"], f"{player} comes in"))
            before = change.get(player, 1.0)
            change[player] = size / newest[player] if newest.get(player) else 1.0
            if change[player] <= _DROP and before >= _STEADY:
                found.append(Mark(line["round"], f"{player}: step size × {change[player]:.2g}"))
            newest[player] = size
    return found


def draw_panel(axis: "Axes", panel: Panel, marked: Sequence[Mark]) -> None:
    """One panel, with dotted lines at what is marked."""
    for curve in panel.curves:
        (line,) = axis.plot(curve.rounds, curve.values, label=curve.label, linewidth=1.2, marker=_marker(curve))
        if curve.low != curve.values:
            axis.fill_between(curve.rounds, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    if panel.title in _PANELS.values():
        axis.axhline(0, color="black", linewidth=0.8)
    for mark in marked:
        axis.axvline(mark.round, color="grey", linestyle=":", linewidth=1)
    axis.set_ylabel(panel.title)
    axis.grid(alpha=0.3)
    if len(panel.curves) > 1:
        axis.legend(loc="best", fontsize="small")


def draw_game(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a journal's lines to a PNG file, a panel below the other."""
    from matplotlib.figure import Figure  # takes its time

    found, marked = panels(lines), marks(lines)
    figure = Figure(figsize=(9, 2.75 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, found, strict=True):
        draw_panel(axis, panel, marked)
    axes[-1].set_xlabel("round")
    figure.savefig(path, dpi=110)


def _marker(curve: Curve) -> str:
    return "." if len(curve.rounds) <= _POINTS / 5 else ""


def _curve(label: str, points: Sequence[tuple[int, float | None]]) -> Curve:
    known = np.array([(round, value) for round, value in points if value is not None], dtype=float).reshape(-1, 2)
    parts = np.array_split(known, min(len(known), _POINTS)) if len(known) else []
    rounds, values = ([part[:, column].mean().item() for part in parts] for column in (0, 1))
    low, high = ([end(part[:, 1]).item() for part in parts] for end in (np.min, np.max))
    return Curve(label, rounds, values, low, high)
