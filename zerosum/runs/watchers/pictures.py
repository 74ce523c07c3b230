"""Pictures of what the players make, at the start, in the middle and at the end."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zerosum.match import Match, Record, Watcher
from zerosum.randomness import kept_random_state
from zerosum.runs.files import whole_files
from zerosum.runs.messages import attempt

FOLDER = "pictures"


class Pictures(Watcher):
    """Has ``draw`` make files named for their round: ``pictures/round-000500.png``. The match goes on without a picture
    that cannot be drawn.

    Attributes:
        failed: what is said of those.
    """

    def __init__(self, folder: Path, draw: Callable[[Path], None]) -> None:
        self.folder, self.draw = folder / FOLDER, draw
        self.failed: list[str] = []

    def on_start(self, match: Match) -> None:
        if match.round == 0:
            self._draw(match)

    def on_round(self, match: Match, record: Record) -> None:
        if match.over or record.round == match.rounds // 2:
            self._draw(match)

    def state_dict(self) -> dict[str, Any]:
        return {"failed": list(self.failed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.failed = list(state.get("failed", ()))

    def _draw(self, match: Match) -> None:
        name = f"round-{match.round:06d}.png"
        attempt(f"the picture {name}", partial(self._draw_whole, name), self.failed)

    def _draw_whole(self, name: str) -> None:
        with whole_files(self.folder) as aside, kept_random_state():
            self.draw(aside / name)


def drawn(folder: Path) -> dict[int, Path]:
    """The pictures in a run's folder, by their round."""
    return {int(path.stem.removeprefix("round-")): path for path in sorted((folder / FOLDER).glob("round-*.png"))}
