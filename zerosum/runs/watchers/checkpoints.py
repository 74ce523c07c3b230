"""Checkpoints: what an interrupted run goes on from, and what one that diverged goes back to."""

import time
from pathlib import Path
from typing import Any

from zerosum.match import Figures, Match, Record, Watcher
from zerosum.runs import checkpoints
from zerosum.runs.watchers.journal import Journal


class Checkpoints(Watcher):
    """Saves the match's state before its first round, every so many seconds and when it ends, with the journal complete
    up to that round; and whenever the measured figure ``best_by`` was better than before.

    After an error in the middle of a round the checkpoint before it stays.

    Args:
        seconds: from one to the next; 0 saves every round.
        keep: how many of the newest to keep, beside the first and the best.

    Raises:
        ValueError: ``seconds`` below 0, or ``keep`` below 1.
    """

    def __init__(
        self, folder: Path, journal: Journal, seconds: float = 60.0, keep: int = 2, best_by: str | None = None
    ) -> None:
        if seconds < 0 or keep < 1:
            raise ValueError(f"checkpoints: seconds at least 0, keep at least 1; got {seconds} and {keep}")
        self.folder = folder
        self.journal = journal
        self.seconds = seconds
        self.keep = keep
        self.best_by = best_by
        self._newest = time.monotonic()
        self._gone_back_to: Path | None = None

    def on_start(self, match: Match) -> None:
        self._best = max((self._score(figures) for _, figures in match.measured), default=float("-inf"))
        if not checkpoints.saved(self.folder):
            self._save(match)

    def on_round(self, match: Match, record: Record) -> None:
        if record.measured is not None and self._score(record.measured) > self._best:
            self._best = self._score(record.measured)
            self.journal.flush()
            checkpoints.save(self.folder, match.state_dict(), best=True)
        if time.monotonic() - self._newest >= self.seconds:
            self._save(match)

    def on_end(self, match: Match) -> None:
        if not match.broken:
            self._save(match)

    def rewind(self, match: Match) -> dict[str, Any]:
        """Put a match that diverged back to the newest checkpoint, with its players' step sizes halved; where it had
        been put there before and not come as far as another, to the one before that. Returns the state that it is in.

        Raises:
            Damaged: there is no checkpoint that is whole.
        """
        found = checkpoints.saved(self.folder)
        if found and found[-1] == self._gone_back_to and len(found) > 1:
            found[-1].unlink()
        scales = {player.name: player.step_scale for player in match.game.players}
        rewinds = match.rewinds
        match.load_state_dict(_whole(self.folder))
        match.rewinds = rewinds + 1
        for player in match.game.players:
            player.step_scale = scales[player.name] / 2
        state = match.state_dict()
        self._gone_back_to = checkpoints.save(self.folder, state)
        checkpoints.drop_after(self.folder, match.round, but=self._gone_back_to)
        return state

    def _score(self, figures: Figures) -> float:
        return figures.get(self.best_by, float("-inf")) if self.best_by is not None else float("-inf")

    def _save(self, match: Match) -> None:
        self.journal.flush()
        checkpoints.save(self.folder, match.state_dict())
        checkpoints.prune(self.folder, self.keep)
        self._newest = time.monotonic()


def _whole(folder: Path) -> dict[str, Any]:
    state, _ = checkpoints.load_newest(folder)
    if state is None:
        raise checkpoints.Damaged(f"{folder / checkpoints.FOLDER}: no checkpoint is left")
    return state
