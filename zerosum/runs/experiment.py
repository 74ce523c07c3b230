"""What a recipe makes: a match, or several one after another, and what is shown and kept of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from zerosum.match import Match
from zerosum.randomness import seed_all

ALONE = ""
"""Name of the stage of an experiment that has only one."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment was for: figures for ``summary.json``, and the same for a person to read; and the kind of what
    is left in the run's folder, where it is one that :func:`zerosum.load` takes up (:mod:`zerosum.runs.results`)."""

    figures: dict[str, Any]
    table: RenderableType
    result: str | None = None


@dataclass(frozen=True)
class Stage:
    """A match, and what a run shows and keeps of it.

    Args:
        draw: draws what the players make into a PNG file (whose ``Description`` a report shows), and leaves the game
            and its random numbers as they were. Called at the start, in the middle and at the end.
        best_by: the measured figure whose greatest value marks the best checkpoint, which is kept.
    """

    match: Match
    draw: Callable[[Path], None] | None = None
    best_by: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Matches played one after another.

    Args:
        stages: makes each, by a name that can be a folder's, of the matches played before it, by their names. The first
            is made before anything is written. Each later one has a seed of its own: the run's, and its place added.
        finish: writes what the experiment leaves behind into a folder, and says what came of the matches played.
        side_by_side: the stages are to be compared: none looks at another, all begin from the run's seed as if they
            were alone, and one that diverges keeps the others from nothing.
        plan: what there is to do, in words; said before the first round.
    """

    stages: Mapping[str, Callable[[Mapping[str, Match]], Match | Stage]]
    finish: Callable[[Mapping[str, Match], Path], Outcome] | None = None
    side_by_side: bool = False
    plan: str | None = None

    @classmethod
    def of(
        cls,
        stage: Match | Stage,
        finish: Callable[[Mapping[str, Match], Path], Outcome] | None = None,
        plan: str | None = None,
    ) -> "Experiment":
        """Of one stage that is made already."""
        return cls({ALONE: lambda _: stage}, finish, plan=plan)

    def begin(self, name: str, played: Mapping[str, Match], seed: int) -> Stage:
        """Make a stage from the run's ``seed``."""
        place = list(self.stages).index(name)
        if self.side_by_side:
            seed_all(seed)
        elif place:  # the first goes on from where the recipe began
            seed_all(seed + place)
        made = self.stages[name](played)
        return made if isinstance(made, Stage) else Stage(made)
