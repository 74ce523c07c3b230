"""Two numbers and a saddle: how each of the dynamics moves, drawn side by side.

``python -m zerosum.run recipes/saddle.py --game bilinear`` plays all of them; ``--dynamics`` chooses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn
from torch.optim import SGD

from zerosum import DynamicsName, Game, GradientNorm, Match, Player, make_dynamics
from zerosum.runs import Experiment, Options, Outcome

GAMES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bilinear": lambda x, y: x * y,
    "quadratic": lambda x, y: -0.1 * x**2 + x * y + 0.1 * y**2,
    "dirac-gan": lambda x, y: F.logsigmoid(-x * y),  # Mescheder et al., ICML 2018: x discriminates, y generates
}


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Play a game of two numbers, max over x and min over y, by several dynamics; the saddle is at (0, 0)."""

    game: Literal["bilinear", "quadratic", "dirac-gan"] = "bilinear"
    """bilinear: x·y; quadratic: -0.1·x² + x·y + 0.1·y²; dirac-gan: log sigmoid(-x·y), a GAN of a point against a
    linear discriminator."""
    dynamics: tuple[DynamicsName, ...] = get_args(DynamicsName)
    """The rules to play by."""
    adjustment: float = 1.0
    """Weight of what consensus and symplectic play add."""
    rounds: int = 150
    """Rounds of each."""
    step: float = 0.2
    """Step size of both players (SGD)."""
    start: tuple[float, float] = (1.0, 1.0)
    """Where x and y start."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "step", "adjustment")
        self.check_each_once("dynamics")


class Number(nn.Module):
    """A player that is a number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


def recipe(config: Config) -> Experiment:
    """The same game by each of ``config.dynamics``."""
    payoff = GAMES[config.game]

    def match(dynamics: DynamicsName, played: Mapping[str, Match]) -> Match:
        x, y = (Number(value).to(config.torch_device) for value in config.start)
        game: Game[tuple[Tensor, Tensor]] = Game(
            players=(
                Player("x", x, SGD(x.parameters(), config.step), "maximize"),
                Player("y", y, SGD(y.parameters(), config.step), "minimize"),
            ),
            play=lambda _: (x.value, y.value),
            payoff=lambda play: payoff(*play),
        )
        return Match(
            game,
            make_dynamics(dynamics, config.adjustment),
            config.rounds,
            criterion=GradientNorm(),
            measure=lambda: {"x": x.value.item(), "y": y.value.item()},
            measure_every=1,
        )

    def finish(matches: Mapping[str, Match], folder: Path) -> Outcome:
        paths = {name: path(match) for name, match in matches.items()}
        draw(paths, config, folder / "trajectories.png")
        table = Table("dynamics", "x", "y", "distance to the saddle", "a round")
        figures = {}
        for name, points in paths.items():
            x, y = points[-1].tolist()
            first, last = math.hypot(*points[len(points) // 2]), math.hypot(x, y)
            rate = (last / first) ** (1 / max(1, len(points) // 2)) if first > 0 else 1.0  # over the second half
            figures[name] = {"x": x, "y": y, "distance": last, "rate": rate}
            table.add_row(name, f"{x:.3g}", f"{y:.3g}", f"{last:.3g}", f"× {rate:.4f}")
        return Outcome(figures, table)

    return Experiment({name: partial(match, name) for name in config.dynamics}, finish, side_by_side=True)


def path(match: Match) -> NDArray[np.float64]:
    """Where the players were: (rounds + 1, 2)."""
    return np.array([[figures["x"], figures["y"]] for _, figures in match.measured])


def draw(paths: Mapping[str, NDArray[np.float64]], config: Config, file: Path) -> None:
    """Each path over the game's vector field, and all distances to the saddle over the rounds."""
    from matplotlib.figure import Figure  # takes its time

    columns = 4
    rows = -(-(len(paths) + 1) // columns)
    figure = Figure(figsize=(4 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    reach = 1.6 * max(1.0, *(abs(value) for value in config.start))
    for axis, (name, points) in zip(axes, paths.items(), strict=False):
        draw_field(axis, config.game, reach)
        axis.plot(points[:, 0], points[:, 1], color="C0", marker=".", markersize=4, linewidth=1)
        axis.plot(*points[0], "o", color="C2")
        axis.plot(0, 0, "*", color="C3", markersize=14)
        axis.set(title=name, xlabel="x (maximizes)", ylabel="y (minimizes)", xlim=(-reach, reach), ylim=(-reach, reach))
    for name, points in paths.items():
        axes[len(paths)].semilogy(np.maximum(np.hypot(*points.T), 1e-16), label=name)
    axes[len(paths)].set(title="distance to the saddle", xlabel="round")
    axes[len(paths)].legend(fontsize="small")
    for axis in axes[len(paths) + 1 :]:
        axis.axis("off")
    figure.savefig(file, dpi=100)


def draw_field(axis: Any, game: str, reach: float) -> None:
    """Arrows along which both players are drawn."""
    line = torch.linspace(-reach, reach, 15)
    x, y = (grid.clone().requires_grad_() for grid in torch.meshgrid(line, line, indexing="xy"))
    up, down = torch.autograd.grad(GAMES[game](x, y).sum(), (x, y))
    axis.quiver(*(grid.detach().numpy() for grid in (x, y, up, -down)), color="lightgrey")
