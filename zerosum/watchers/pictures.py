"""Pictures of what the players make, at the start, in the middle and at the end."""

from pathlib import Path

from zerosum.match import Match, Record, Watcher

FOLDER = "pictures"


class Pictures(Watcher):
    """Calls ``match.draw``, where there is one, for files named for their round: ``pictures/round-000500.png``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def on_start(self, match: Match) -> None:
        if match.round == 0:
            self._draw(match)

    def on_round(self, match: Match, record: Record) -> None:
        if match.over or record.round == match.rounds // 2:
            self._draw(match)

    def _draw(self, match: Match) -> None:
        if match.draw is not None:
            self.folder.mkdir(exist_ok=True)
            match.draw(self.folder / f"round-{match.round:06d}.png")


def drawn(folder: Path) -> dict[int, Path]:
    """The pictures in a run's folder, by their round."""
    return {int(path.stem.removeprefix("round-")): path for path in sorted((folder / FOLDER).glob("round-*.png"))}
