"""What a criterion is, and what it says."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zerosum.game import Game


@dataclass(frozen=True)
class Verdict:
    """What a criterion found after a round: the figures behind it, whether it holds, and why, in words."""

    figures: dict[str, float]
    stationary: bool
    reason: str


class Criterion(ABC):
    """Is this an equilibrium? Asked in rounds in which both players move, every ``every`` of them.

    A criterion leaves the game as it was. The random numbers that it draws are its own: the match puts all generators
    back to where they were.
    """

    every: int = 1

    def before(self, game: Game[Any]) -> None:  # noqa: B027 (most look at the game after the round alone)
        """Look at the game before the round."""

    @abstractmethod
    def after(self, game: Game[Any]) -> Verdict:
        """Look at it after the round, and judge."""

    def state_dict(self) -> dict[str, Any]:
        """What the verdict rests on beside the game as it stands, as plain containers of tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take up a state that :meth:`state_dict` gave."""


def check_settings(every: int, tolerance: float) -> None:
    """What every criterion with a tolerance asks of its settings.

    Raises:
        ValueError: ``every`` below 1, or a tolerance below 0.
    """
    if every < 1 or not tolerance >= 0:
        raise ValueError(f"every is at least 1, tolerance at least 0; got {every} and {tolerance}")


def judge(name: str, value: float, tolerance: float, what: str) -> Verdict:
    """The verdict on a figure that is to come down to a tolerance; ``what`` calls it in words."""
    holds = value <= tolerance
    return Verdict({name: value}, holds, f"{what} {value:.3g}, {'within' if holds else 'above'} {tolerance:g}")
