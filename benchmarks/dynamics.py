"""Measure the dynamics on games whose answers are known, ``python -m benchmarks.dynamics``: what docs/games.md has.

Rounds to come a million times nearer to the saddle, each rule at the best of a grid of step sizes; rounds to solve
random matrix games; and what a round costs.
"""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from tests.strategies import normal
from tests.zerosum.games import Quadratic, position, vector_game
from zerosum import (
    DYNAMICS,
    Criterion,
    Dynamics,
    Exploitability,
    Extragradient,
    Game,
    Match,
    Optimistic,
    Player,
    Simultaneous,
    Verdict,
    extragradient_step,
    make_dynamics,
    matrix_game,
)
from zerosum.recipes.common.payoffs import Array

STEPS = [2 ** -(i / 2) for i in range(-3, 15)]  # times 1 / |J|
ADJUSTMENTS = [0.3, 1.0, 3.0]  # times 1 / |J|, of consensus and symplectic play
LIMIT, NEARER, MATRICES = 20_000, 1e-6, 200


class NearSaddle(Criterion):
    """Holds when the players have come near enough to the saddle, or are lost."""

    def __init__(self, saddle: Tensor, start: Tensor) -> None:
        self.saddle, self.first = saddle, (start - saddle).norm().item()

    def after(self, game: Game) -> Verdict:
        distance = (position(game) - self.saddle).norm().item() / self.first
        return Verdict({"distance": distance}, distance <= NEARER or not distance < 1e3, "")


def rounds_to_saddle(game: Game, rule: Dynamics, saddle: Tensor, limit: int) -> float:
    """Rounds to come within ``NEARER`` of the first distance; infinite where that takes more than ``limit``."""
    criterion = NearSaddle(saddle, position(game))
    match = Match(game, rule, limit, criterion, stop_when_stationary=True)
    match.play()
    return match.round if match.verdict.figures["distance"] <= NEARER else math.inf


def best(make: Callable[[float], Game], name: str, saddle: Tensor, largest: float) -> tuple[float, float]:
    """(rounds, step size times |J|) at the best step size and adjustment."""
    found = (math.inf, math.nan)
    for adjustment in ADJUSTMENTS if name in ("consensus", "symplectic") else [1.0]:
        for step in STEPS:
            limit = int(min(LIMIT, found[0]))
            rounds = rounds_to_saddle(make(step / largest), make_dynamics(name, adjustment / largest), saddle, limit)
            found = min(found, (rounds, step))
    return found


def bilinear(seed: int, size: int) -> tuple[Callable[[float], Game], Tensor, float]:
    """x·Ay with singular values of A from 0.1 to 1."""
    left, right = (torch.linalg.qr(normal(seed + i, size, size))[0] for i in range(2))
    matrix = left @ torch.diag(torch.logspace(0, -1, size, dtype=torch.float64)) @ right
    start = normal(seed + 2, size), normal(seed + 3, size)
    return lambda step: vector_game(lambda x, y: x @ matrix @ y, *start, step), torch.zeros(2 * size).double(), 1.0


def quadratic(condition: float, coupling: float) -> tuple[Callable[[float], Game], Tensor, float]:
    """Curvatures from 1 / condition to 1, and a coupling of the players."""
    game = Quadratic(0, 20, 20, condition, coupling)
    return game.game, game.saddle, torch.linalg.matrix_norm(game.jacobian, 2).item()


def measure_saddles() -> None:
    games = {
        "bilinear": bilinear(0, 20),
        "strong, coupled weakly": quadratic(100, 0.1),
        "strong, coupled": quadratic(10, 1.0),
        "weak, coupled": quadratic(100, 1.0),
    }
    print(f"\nRounds to come {1 / NEARER:.0e} times nearer (best step size times |J|):\n")
    print("| dynamics | " + " | ".join(games) + " |\n" + "|---" * (len(games) + 1) + "|")
    for name in DYNAMICS:
        cells = []
        for make, saddle, largest in games.values():
            rounds, step = best(make, name, saddle, largest)
            cells.append(f"{rounds:.0f} ({step:.2g})" if rounds < math.inf else "–")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def rounds_to_solve(payoffs: Array, rule: Dynamics, move: str, average: bool, share: float) -> float:
    """Rounds to an exploitability of 1e-3, at a share of the largest sure step size of extragradient."""
    matrix = torch.from_numpy(payoffs)
    game = matrix_game(matrix, move, share * extragradient_step(matrix, move), average)
    row, column = (player.average if average else player.module for player in game.players)
    criterion = Exploitability(matrix, row, column, every=10, tolerance=1e-3)
    match = Match(game, rule, LIMIT, criterion, stop_when_stationary=True)
    match.play()
    return match.round if match.verdict.stationary else math.inf


def measure_matrix_games() -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.uniform(-1, 1, rng.integers(2, 31, 2)) for _ in range(MATRICES)]
    ways = {
        "extragradient, projected": (Extragradient, "projected", False, 1.0),
        "optimistic, projected": (Optimistic, "projected", False, 0.5),
        "extragradient, multiplicative, averages": (Extragradient, "multiplicative", True, 1.0),
        "optimistic, multiplicative, averages": (Optimistic, "multiplicative", True, 0.5),
        "simultaneous, projected, averages": (Simultaneous, "projected", True, 0.02),
    }
    print(f"\nRounds to an exploitability of 1e-3, {MATRICES} random matrices up to 30 × 30, entries in [-1, 1]:\n")
    print("| how | median | 9 of 10 within | all within |\n|---|---|---|---|")
    for name, (rule, *how) in ways.items():
        chosen = matrices if "projected" in name and "averages" not in name else matrices[:20]
        rounds = sorted(rounds_to_solve(payoffs, rule(), *how) for payoffs in chosen)
        shown = (statistics.median(rounds), rounds[int(0.9 * len(rounds))], rounds[-1])
        cells = (f"{value:.0f}" if value < math.inf else f"more than {LIMIT}" for value in shown)
        print(f"| {name} ({len(chosen)} matrices) | " + " | ".join(cells) + " |", flush=True)


def measure_cost() -> None:
    """Seconds a round on two perceptrons, at batch 512, beside simultaneous play's."""
    torch.manual_seed(0)

    def perceptron(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, outputs))

    one, two = perceptron(64, 64), perceptron(64, 1)
    game: Game = Game(
        players=(
            Player("two", two, SGD(two.parameters(), 1e-4), "maximize"),
            Player("one", one, SGD(one.parameters(), 1e-4), "minimize"),
        ),
        play=lambda z: (two(torch.tanh(z)), two(one(z))),
        payoff=lambda play: (play[0] - play[1]).mean() - play[1].square().mean(),
        sample=lambda: torch.randn(512, 64),
    )
    seconds = {}
    for name in DYNAMICS:
        match = Match(game, make_dynamics(name), rounds=10)
        match.play()  # warm up
        times = []
        for _ in range(5):
            match.rounds += 20
            started = time.perf_counter()
            match.play()
            times.append((time.perf_counter() - started) / 20)
        seconds[name] = min(times)
    print("\nA round's time beside simultaneous play's (two perceptrons, batch 512):\n")
    print("| " + " | ".join(seconds) + " |\n" + "|---" * len(seconds) + "|")
    print("| " + " | ".join(f"{value / seconds['simultaneous']:.1f}" for value in seconds.values()) + " |")


if __name__ == "__main__":
    measure_saddles()
    measure_matrix_games()
    measure_cost()
