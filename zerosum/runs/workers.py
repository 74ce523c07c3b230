"""Who plays the cells of a sweep."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO

from zerosum.runs.cells import Cell
from zerosum.runs.children import Children, lock_of
from zerosum.runs.messages import INTERRUPTED
from zerosum.runs.trials import Trials

_PAUSE = 1.0  # seconds, while others play all that there is


class Workers:
    """Play cells, so many at a time, until all are done or have failed.

    Args:
        tell: is called with each that was played here, and its exit code.

    Attributes:
        killed: folders of those that were killed, or interrupted, under this process's eyes.
    """

    def __init__(self, trials: Trials, children: Children, tell: Callable[[Cell, int], None]) -> None:
        self.trials, self.children, self.tell = trials, children, tell
        self.killed: set[Path] = set()

    def unsettled(self) -> list[Cell]:
        """Cells that are neither finished nor failed nor killed."""
        settled = self.trials.failed().keys() | self.killed
        return [cell for cell in self.trials.cells() if cell.folder not in settled and not cell.finished]

    def play(self, workers: int) -> Iterator[None]:
        """Yields now and then, until there is nothing left. Broken off, the runs end after their rounds."""
        with ThreadPoolExecutor(workers) as pool:
            try:
                left = {pool.submit(self._work) for _ in range(workers)}
                while left:
                    done, left = wait(left, timeout=_PAUSE, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    yield
            finally:
                self.children.stop()

    def _work(self) -> None:
        while not self.children.stopped.is_set():
            if (taken := self.trials.take()) is not None:
                self._play(*taken)
            elif unsettled := self.unsettled():
                self.trials.take_up_again(unsettled)
                self.children.stopped.wait(_PAUSE)
            else:
                return

    def _play(self, trial: Any, cell: Cell) -> None:
        with lock_of(cell.folder) as lock:
            if lock is None:  # an orphan of a worker that was killed
                self.trials.tell(trial, cell, INTERRUPTED)
                self.children.stopped.wait(_PAUSE)
                return
            played = not cell.finished
            code = self._run(cell, lock) if played else 0
            if code < 0 or code == INTERRUPTED:
                self.killed.add(cell.folder)
            self.trials.tell(trial, cell, INTERRUPTED if code < 0 else code)
        if played:
            self.tell(cell, code)

    def _run(self, cell: Cell, lock: BinaryIO) -> int:
        space = self.trials.space
        arguments = [space.recipe, *space.arguments(cell), "--out", str(cell.folder), "--resume", "auto"]
        return self.children.play(arguments, cell.folder, lock)
