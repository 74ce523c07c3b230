"""Runs as processes of their own, each with a lock that lives as long as it or who began it does."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from zerosum.runs.messages import INTERRUPTED

_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "SLURM_STEP_")  # each run plays alone
PROGRAM = (sys.executable, "-m", "zerosum.run")


@contextmanager
def lock_of(folder: Path) -> Iterator[BinaryIO | None]:
    """The lock of a run's folder, beside it; None where another process has it, or one that it began."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


def output_of(folder: Path) -> Path:
    """Where a run's output is kept."""
    return folder.with_name(f"{folder.name}.log")


class Children:
    """Processes that play runs, from any number of threads.

    Args:
        program: plays one, as ``python -m zerosum.run`` does.
        environment: for them, beside this process's own.
    """

    def __init__(self, program: Sequence[str] = PROGRAM, environment: Mapping[str, str] | None = None) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}
        self.program, self.environment = program, own | dict(environment or {})
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()
        self._starting = threading.Lock()

    def play(self, arguments: Sequence[str], folder: Path, lock: BinaryIO) -> int:
        """The exit code of a run, which has the lock of its folder too: where this process is killed and it is not, it
        keeps it."""
        with output_of(folder).open("ab") as log:
            with self._starting:
                if self.stopped.is_set():
                    return INTERRUPTED
                child = subprocess.Popen(
                    [*self.program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    pass_fds=(lock.fileno(),),
                )
                self.running.add(child)
            code = child.wait()
        with self._starting:
            self.running.remove(child)
        return code

    def stop(self) -> None:
        """End them, each after its round; none is begun any more."""
        with self._starting:
            self.stopped.set()
            for child in self.running:
                child.terminate()
