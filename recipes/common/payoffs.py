"""Payoff matrices by name or from a file, and the exact solution of their games."""

import codecs
import csv
import itertools
import math

import numpy as np
from numpy.typing import NDArray

from zerosum.runs.inputs import expand

Array = NDArray[np.float64]

NAMED = ("rps", "matching-pennies", "blotto")
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
    path = expand(source)
    if not path.is_file():
        raise ValueError(f"--payoff {source}: neither {', '.join(NAMED)}, nor a CSV file")
    try:
        payoffs = np.array(read_table(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"--payoff {source}: expected lines of numbers, as many in each, with commas, semicolons or tabs between, "
            f"in UTF-8 ({error})"
        ) from error
    if payoffs.size == 0 or not np.isfinite(payoffs).all():
        raise ValueError(f"--payoff {source}: expected a matrix of finite numbers; got shape {payoffs.shape}")
    return payoffs, *([str(i + 1) for i in range(n)] for n in payoffs.shape)  # type: ignore[return-value]


def read_table(content: bytes) -> list[list[float]]:
    """Rows of numbers from comma-separated values as spreadsheets write them: with or without a byte-order mark, with
    commas, semicolons or tabs between, decimal commas beside the latter two, and empty cells or lines at the end.

    Raises:
        ValueError: it holds something else; the message names the line.
    """
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    lines = [line.partition("#")[0].strip(" ") for line in content.decode(encoding).splitlines()]
    found = [mark for mark in ";\t" if any(mark in line for line in lines)]
    delimiter = found[0] if found else ","
    rows = {number: _cells(line, delimiter) for number, line in enumerate(lines, 1) if line.strip(f'{delimiter} \t"')}
    width = max((index + 1 for row in rows.values() for index, cell in enumerate(row) if cell), default=0)
    table = []
    for number, row in rows.items():
        if len(row) < width or not all(row[:width]):
            raise ValueError(f"line {number} has {len([cell for cell in row if cell])} numbers, another has {width}")
        table.append([_number(cell, number, delimiter) for cell in row[:width]])
    return table


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _number(cell: str, line: int, delimiter: str) -> float:
    text = cell.replace(",", ".") if delimiter != "," else cell
    try:
        if "_" in text:  # which Python takes
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"line {line}: {cell!r} is no number") from None


def exact_solution(payoffs: Array) -> tuple[float, Array, Array]:
    """Value and an optimal strategy of each player, by linear programming (von Neumann; Dantzig 1951)."""
    from scipy.optimize import linprog  # takes its time

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
