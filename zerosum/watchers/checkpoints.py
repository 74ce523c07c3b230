"""Checkpoints: what an interrupted run goes on from."""

import time
from pathlib import Path

from zerosum.folder import save_checkpoint
from zerosum.match import Match, Record, Watcher
from zerosum.watchers.journal import Journal


class Checkpoints(Watcher):
    """Saves the match's state every so many seconds and when it ends, with the journal complete up to that round.

    After an error in the middle of a round the checkpoint before it stays.
    """

    def __init__(self, folder: Path, journal: Journal, seconds: float = 60.0) -> None:
        self.folder = folder
        self.journal = journal
        self.seconds = seconds
        self._newest = time.monotonic()

    def on_round(self, match: Match, record: Record) -> None:
        if time.monotonic() - self._newest >= self.seconds:
            self._save(match)

    def on_end(self, match: Match) -> None:
        if not match.broken:
            self._save(match)

    def _save(self, match: Match) -> None:
        self.journal.flush()
        save_checkpoint(self.folder, match.state_dict())
        self._newest = time.monotonic()
