"""Solve a zero-sum matrix game by playing it, beside the exact solution of the linear program.

``python -m zerosum.run recipes/matrix_game.py --payoff blotto``, or ``--payoff payoffs.csv``: the row player's payoffs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from zerosum import DynamicsName, Exploitability, Match, extragradient_step, make_dynamics, matrix_game
from zerosum.finite import Move
from zerosum.recipes.common.payoffs import NAMED, Array, exact_solution, payoff_matrix
from zerosum.runs import Experiment, Options, Outcome
from zerosum.runs.inputs import expand

_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Solve a zero-sum matrix game: the row player maximizes, the column player minimizes."""

    payoff: str = "rps"
    """rps (rock, paper, scissors), matching-pennies, blotto (5 soldiers on 3 fields; fields won less fields lost), or
    a CSV file of numbers: a line for each row, the row player's payoffs, with commas, semicolons or tabs between; with
    the latter two, decimal commas too."""
    dynamics: DynamicsName = "extragradient"
    """The rule to play by. Simultaneous and alternating play circle: report their averages."""
    move: Move = "projected"
    """How the strategies move: by projected gradient or by multiplicative weights."""
    average: bool = False
    """Report the averages of the strategies played, not the last ones. Multiplicative weights need it for speed."""
    step: float | None = None
    """Step size. Default: 0.9 / L, for which extragradient converges; half of it for optimistic play."""
    rounds: int = 20_000
    """Rounds at most; the match ends as soon as the exploitability is down to the tolerance."""
    tolerance: float = 1e-4
    """Exploitability that is wanted, in units of the payoff."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "step", "tolerance")

    def inputs(self) -> Mapping[str, Path]:
        return {} if self.payoff in NAMED else {"payoff": expand(self.payoff)}


def recipe(config: Config) -> Experiment:
    """The matrix game from random strategies, until it is solved."""
    payoffs, row_names, column_names = payoff_matrix(config.payoff)
    matrix = torch.from_numpy(payoffs).to(config.torch_device)
    largest = extragradient_step(matrix, config.move)
    step = config.step if config.step is not None else largest / (2 if config.dynamics == "optimistic" else 1)
    game = matrix_game(matrix, config.move, step, average=True)
    for player in game.players:
        player.place([torch.rand_like(value) for value in player.values()])
        player.project()
    row, column = ((p.average if config.average else p.module) for p in game.players)
    criterion = Exploitability(matrix, row, column, every=10, tolerance=config.tolerance)  # type: ignore[arg-type]

    def finish(matches: Mapping[str, Match], folder: Path) -> Outcome:
        p, q = (strategy().detach().cpu().numpy() for strategy in (row, column))  # type: ignore[misc]
        value = (p @ payoffs @ q).item()
        exploitability = criterion.after(game).figures["exploitability"]
        exact_value, exact_p, exact_q = exact_solution(payoffs)
        draw(folder / "strategies.png", payoffs, (p, q), (exact_p, exact_q), (row_names, column_names))
        table = Table("", "", "played", "linear program", title=Text(f"{config.payoff}: {len(p)} × {len(q)}"))
        for player, names, found, exact in (("row", row_names, p, exact_p), ("column", column_names, q, exact_q)):
            for i in sorted(np.argsort(-found)[:_SHOWN]):
                table.add_row(player, names[i], f"{found[i]:.4f}", f"{exact[i]:.4f}")
            if len(found) > _SHOWN:
                table.add_row(player, f"… {len(found) - _SHOWN} less likely ones", "", "")
            table.add_section()
        table.add_row("value", "", f"{value:.6f}", f"{exact_value:.6f}")
        table.add_row("exploitability", "", f"{exploitability:.2e}", "0")
        figures = {"value": value, "exact_value": exact_value, "exploitability": exploitability}
        figures |= {"row_strategy": p.tolist(), "column_strategy": q.tolist()}
        figures |= {"exact_row_strategy": exact_p.tolist(), "exact_column_strategy": exact_q.tolist()}
        return Outcome(figures, table)

    rule = make_dynamics(config.dynamics)
    match = Match(game, rule, config.rounds, criterion, stop_when_stationary=True)
    return Experiment.of(match, finish)


def draw(
    path: Path,
    payoffs: Array,
    found: tuple[Array, Array],
    exact: tuple[Array, Array],
    names: tuple[list[str], list[str]],
) -> None:
    """The payoffs as a map, and along its sides both strategies, as played and as the linear program has them."""
    from matplotlib.figure import Figure  # takes its time

    figure = Figure(figsize=(9, 8), layout="constrained")
    (top, corner), (map_axis, side) = figure.subplots(2, 2, width_ratios=[3, 1], height_ratios=[1, 3])
    reach = max(abs(payoffs).max(), 1e-12)
    image = map_axis.imshow(payoffs, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    map_axis.set(xlabel="column player (minimizes)", ylabel="row player (maximizes)")
    rows, columns = (np.arange(n) for n in payoffs.shape)
    map_axis.set_xticks(columns, names[1], rotation=90)
    map_axis.set_yticks(rows, names[0])
    top.bar(columns, found[1], label="played")
    top.plot(columns, exact[1], "k_", markersize=12, label="linear program")
    top.legend(fontsize="small")
    top.set(xlim=map_axis.get_xlim(), xticks=[], ylabel="probability")
    side.barh(rows, found[0])
    side.plot(exact[0], rows, "k|", markersize=12)
    side.set(ylim=map_axis.get_ylim(), yticks=[], xlabel="probability")
    corner.axis("off")
    figure.colorbar(image, ax=corner, location="left", label="payoff to the row player")
    figure.savefig(path, dpi=110)
