"""Criteria made of criteria."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zerosum.criterion import Criterion, Verdict
from zerosum.game import Game


class _Together(Criterion):
    """Several criteria, each read as often as its own ``every`` says, with its newest verdict kept in between.

    Figures of all are reported together; where two bear the same name, the later criterion's stands.

    Raises:
        ValueError: no criterion at all.
    """

    holds: Callable[[Sequence[bool]], bool]

    def __init__(self, *criteria: Criterion) -> None:
        if not criteria:
            raise ValueError(f"{type(self).__name__} of no criterion")
        self.criteria = criteria
        self.every = math.gcd(*(criterion.every for criterion in criteria))
        self._readings = 0
        self._newest: dict[int, Verdict] = {}

    def _due(self) -> list[int]:
        return [i for i, c in enumerate(self.criteria) if self._readings * self.every % c.every == 0]

    def before(self, game: Game[Any]) -> None:
        for i in self._due():
            self.criteria[i].before(game)

    def after(self, game: Game[Any]) -> Verdict:
        for i in self._due():
            self._newest[i] = self.criteria[i].after(game)
        self._readings += 1
        verdicts = [self._newest[i] for i in range(len(self.criteria))]
        figures = {name: value for verdict in verdicts for name, value in verdict.figures.items()}
        stationary = self.holds([verdict.stationary for verdict in verdicts])
        decisive = [verdict.reason for verdict in verdicts if verdict.stationary == stationary]
        return Verdict(figures, stationary, "; ".join(decisive))

    def state_dict(self) -> dict[str, Any]:
        return {
            "criteria": [criterion.state_dict() for criterion in self.criteria],
            "readings": self._readings,
            "newest": {i: vars(verdict) for i, verdict in self._newest.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for criterion, own in zip(self.criteria, state["criteria"], strict=True):
            criterion.load_state_dict(own)
        self._readings = state["readings"]
        self._newest = {i: Verdict(**verdict) for i, verdict in state["newest"].items()}


class AnyOf(_Together):
    """Holds as soon as one of several criteria does; its reason is that one's."""

    holds = staticmethod(any)


class AllOf(_Together):
    """Holds while all of several criteria do; its reason names those that do not."""

    holds = staticmethod(all)


class Patience(Criterion):
    """Holds when another criterion has held in each of its last ``readings`` readings.

    Raises:
        ValueError: ``readings`` below 1.
    """

    def __init__(self, criterion: Criterion, readings: int = 5) -> None:
        if readings < 1:
            raise ValueError(f"patience is for at least one reading; got {readings}")
        self.criterion, self.readings, self.every = criterion, readings, criterion.every
        self._held = 0

    def before(self, game: Game[Any]) -> None:
        self.criterion.before(game)

    def after(self, game: Game[Any]) -> Verdict:
        verdict = self.criterion.after(game)
        self._held = self._held + 1 if verdict.stationary else 0
        reason = f"{verdict.reason} ({min(self._held, self.readings)} of {self.readings} readings in a row)"
        return Verdict(verdict.figures, self._held >= self.readings, reason)

    def state_dict(self) -> dict[str, Any]:
        return {"criterion": self.criterion.state_dict(), "held": self._held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.criterion.load_state_dict(state["criterion"])
        self._held = state["held"]
