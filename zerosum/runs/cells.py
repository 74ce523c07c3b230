"""What is swept: runs of one recipe that differ in a few options."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zerosum.runs import run_folder
from zerosum.runs.messages import flag


@dataclass(frozen=True)
class Cell:
    """A run: the options in which it differs, by name, and its folder."""

    values: Mapping[str, str]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it was played to its end."""
        return run_folder.is_finished(self.folder)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values.items())


@dataclass(frozen=True)
class Space:
    """Combinations of options' values.

    Args:
        recipe: a file, or the name of an installed one.
        over: values of options, by name, as the command line takes them. Of ``layer_bits:head``, the option is given as
            ``--layer-bits head=VALUE``.
        options: of all runs, as the command line takes them.
        out: folder of all.
    """

    recipe: str
    over: Mapping[str, Sequence[str]]
    options: Sequence[str]
    out: Path

    @cached_property
    def cells(self) -> list[Cell]:
        """One for each combination, the last option's values changing fastest."""
        combinations = itertools.product(*self.over.values())
        return [self.cell(dict(zip(self.over, values, strict=True))) for values in combinations]

    def cell(self, values: Mapping[str, str]) -> Cell:
        """That of a combination."""
        name = "-".join(f"{name}_{values[name]}" for name in self.over)
        return Cell(dict(values), self.out / re.sub(r"[^\w.+=-]", "_", name))

    def arguments(self, cell: Cell) -> list[str]:
        """Of a cell's run, behind the recipe."""
        return [*self.options, *(word for name, value in cell.values.items() for word in words_of(name, value))]


def words_of(name: str, value: str) -> list[str]:
    """An option as the command line takes it; one that is true or false, as ``--name`` or ``--no-name``."""
    name, found, part = name.partition(":")
    if found:
        return [flag(name), f"{part}={value}"]
    if value in ("true", "false"):
        return [flag(name if value == "true" else f"no_{name}")]
    return [flag(name), value]


def figure_of(cell: Cell, name: str) -> float:
    """A figure of a finished run's summary.

    Raises:
        ValueError: it has no such number.
    """
    summary: Mapping[str, Any] = run_folder.read_summary(cell.folder)
    value = summary.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        numbers = ", ".join(key for key, found in summary.items() if isinstance(found, int | float))
        raise ValueError(f"{cell.folder}: its summary has no number {name}; expected one of {numbers}")
    return float(value)
