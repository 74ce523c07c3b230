"""Payoff matrices by name or from a file, and the exact solution of their games."""

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]

_SOLDIERS, _FIELDS = 5, 3


def payoff_matrix(source: str) -> tuple[Array, list[str], list[str]]:
    """Payoffs (rows, columns) to the row player, and the names of the rows and of the columns.

    Raises:
        ValueError: neither a known game nor a file that holds a matrix of finite numbers.
        OSError: the file cannot be read.
    """
    if source == "rps":
        names = ["rock", "paper", "scissors"]
        return np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]), names, names
    if source == "matching-pennies":
        return np.array([[1.0, -1], [-1, 1]]), ["heads", "tails"], ["heads", "tails"]
    if source == "blotto":
        sums = itertools.product(range(_SOLDIERS + 1), repeat=_FIELDS)
        placings = np.array([placing for placing in sums if sum(placing) == _SOLDIERS])
        payoffs = np.sign(placings[:, None] - placings[None]).sum(axis=2).astype(float)
        names = ["-".join(map(str, placing)) for placing in placings]
        return payoffs, names, names
    if not Path(source).is_file():
        raise ValueError(f"--payoff {source}: neither rps, matching-pennies or blotto, nor a CSV file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is refused below
            payoffs = np.loadtxt(source, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(
            f"--payoff {source}: expected numbers with commas between, as many a line ({error})"
        ) from error
    if payoffs.size == 0 or not np.isfinite(payoffs).all():
        raise ValueError(f"--payoff {source}: expected a matrix of finite numbers; got shape {payoffs.shape}")
    return payoffs, *([str(i + 1) for i in range(n)] for n in payoffs.shape)  # type: ignore[return-value]


def exact_solution(payoffs: Array) -> tuple[float, Array, Array]:
    """Value and an optimal strategy of each player, by linear programming (von Neumann; Dantzig 1951)."""
    scale = 2.0 ** (math.frexp(abs(payoffs).max())[1] - 1)  # the solver's tolerances are for numbers of about 1
    payoffs = payoffs / scale

    def best_guarantee(matrix: Array) -> tuple[float, Array]:
        """The largest v, and a distribution p with ``pᵀ matrix ≥ v`` in every column."""
        rows, columns = matrix.shape
        solution = linprog(
            c=np.append(np.zeros(rows), -1.0),
            A_ub=np.hstack([-matrix.T, np.ones((columns, 1))]),
            b_ub=np.zeros(columns),
            A_eq=np.append(np.ones(rows), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * rows + [(None, None)],
        )
        return 0.0 - solution.fun, np.maximum(solution.x[:rows], 0.0)

    value, row = best_guarantee(payoffs)
    return value * scale, row, best_guarantee(-payoffs.T)[1]
