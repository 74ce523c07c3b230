"""The picture of a game: its payoff, gain and drop, Balance Gap and measurements over the rounds."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def draw_game(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw a journal's lines to a PNG file; a dotted line marks where a player came in that had sat out."""
    figure = Figure(figsize=(9, 11), layout="constrained")
    axes = payoff, gains, gap, measured = figure.subplots(4, 1, sharex=True)

    _curve(payoff, lines, "payoff", alpha=0.3, label="each round")
    played = [(line["round"], line["payoff"]) for line in lines if line.get("payoff") is not None]
    if len(played) >= 50:
        width = max(len(played) // 50, 5)
        smooth = [sum(v for _, v in played[i : i + width]) / width for i in range(len(played) - width + 1)]
        payoff.plot([r for r, _ in played[width - 1 :]], smooth, label=f"mean of {width}", color="C0")
    payoff.set_ylabel("payoff")

    _curve(gains, lines, "gain", marker=".", label="gain of the maximizer", color="C2")
    _curve(gains, lines, "drop", marker=".", label="drop by the minimizer", color="C3")
    gains.set_ylabel("change of payoff on the probe")

    _curve(gap, lines, "balance_gap", marker=".", alpha=0.5, linestyle="none", label="Balance Gap", color="C4")
    _curve(gap, lines, "balance_gap_mean", label="running mean", color="C4")
    gap.axhline(0, color="black", linewidth=0.8)
    gap.set_ylabel("Balance Gap")

    figures = [(line["round"], line["measured"]) for line in lines if line.get("measured")]
    for name in figures[0][1] if figures else ():
        measured.plot([r for r, _ in figures], [values[name] for _, values in figures], marker=".", label=name)
    measured.set_ylabel("measured (%)" if figures else "not measured")
    measured.set_xlabel("round")

    first_moves = {player: line["round"] for line in reversed(lines) for player in line.get("losses", ())}
    for axis in axes:
        for entry in set(first_moves.values()) - {1}:
            axis.axvline(entry, color="grey", linestyle=":", linewidth=1)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(loc="best", fontsize="small")
    figure.savefig(path, dpi=110)


def _curve(axis: Axes, lines: list[dict[str, Any]], key: str, **style: Any) -> None:
    points = [(line["round"], line[key]) for line in lines if line.get(key) is not None]
    axis.plot([round for round, _ in points], [value for _, value in points], **style)
