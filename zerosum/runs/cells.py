"""Runs of one recipe that differ in a few options, played by as many workers as pull from one journal.

The journal is Optuna's, in a file; what is done is what the runs' folders say. A worker that was killed leaves a trial
that runs for ever, and a folder whose lock is free: the next worker that has nothing else to do takes that up again.
"""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from zerosum.runs import run_folder
from zerosum.runs.children import Children, lock_of, output_of
from zerosum.runs.messages import INTERRUPTED, flag

JOURNAL = "sweep.log"
_CODE = "exit_code"
_PAUSE = 1.0  # seconds, while others play all that there is


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
class Grid:
    """What is swept.

    Args:
        recipe: a file, or the name of an installed one.
        over: values of options, by name, as the command line takes them.
        options: of all cells, as the command line takes them.
        out: folder of all.
    """

    recipe: str
    over: Mapping[str, Sequence[str]]
    options: Sequence[str]
    out: Path

    @cached_property
    def cells(self) -> list[Cell]:
        """One for each combination of values, the last option's changing fastest."""
        found = []
        for values in itertools.product(*self.over.values()):
            name = "-".join(f"{name}_{value}" for name, value in zip(self.over, values, strict=True))
            found.append(Cell(dict(zip(self.over, values, strict=True)), self.out / re.sub(r"[^\w.+=-]", "_", name)))
        return found

    def arguments(self, cell: Cell) -> list[str]:
        """Of a cell's run, behind the recipe."""
        return [*self.options, *(word for name, value in cell.values.items() for word in words_of(name, value))]

    @property
    def content(self) -> dict[str, Any]:
        """By which it is known again."""
        over = {name: list(values) for name, values in self.over.items()}
        return {"recipe": self.recipe, "over": over, "options": list(self.options)}


def words_of(name: str, value: str) -> list[str]:
    """An option as the command line takes it; one that is true or false, as ``--name`` or ``--no-name``."""
    if value in ("true", "false"):
        return [flag(name if value == "true" else f"no_{name}")]
    return [flag(name), value]


class Queue:
    """Cells to be played, as an Optuna study that processes share.

    Raises:
        ValueError: the package optuna is missing; the message has its install line.
    """

    def __init__(self, grid: Grid) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ImportError as error:
            raise ValueError("a sweep needs the package optuna; pip install 'zerosum[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.states = optuna.trial.TrialState
        self.cells = {tuple(cell.values.values()): cell for cell in grid.cells}
        choice = optuna.distributions.CategoricalDistribution
        self.choices: dict[str, Any] = {name: choice(values) for name, values in grid.over.items()}
        self.names = list(grid.over)
        self._lock = FileLock(grid.out / f".{JOURNAL}.lock")
        storage = JournalStorage(JournalFileBackend(str(grid.out / JOURNAL)))
        with self._lock:
            self.study = optuna.create_study(study_name="sweep", storage=storage, load_if_exists=True)
            for cell in grid.cells:
                self.study.enqueue_trial(dict(cell.values), skip_if_exists=True)

    def take(self) -> tuple[Any, Cell] | None:
        """A trial and its cell, where one waits."""
        with self._lock:
            if not self.study.get_trials(deepcopy=False, states=(self.states.WAITING,)):
                return None
            trial = self.study.ask(self.choices)
        return trial, self.cells[tuple(trial.params[name] for name in self.names)]

    def tell(self, trial: Any, cell: Cell, code: int) -> None:
        """What a cell came to."""
        trial.set_user_attr(_CODE, code)
        if code == 0:
            self.study.tell(trial, _figure(cell))
        else:
            self.study.tell(trial, state=self.states.FAIL)

    def failed(self) -> dict[Path, int]:
        """Exit codes of cells that failed, by their folders; not of those that were interrupted or killed, or of which
        nobody left the output there."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=(self.states.FAIL,)):
            code, cell = trial.user_attrs.get(_CODE, INTERRUPTED), self._cell_of(trial)
            if cell is not None and code != INTERRUPTED and output_of(cell.folder).exists():
                found[cell.folder] = code
        return found

    def take_up_again(self, cells: Sequence[Cell]) -> None:
        """Let those wait that nobody plays."""
        with self._lock:
            waiting = self.study.get_trials(deepcopy=False, states=(self.states.WAITING,))
            begun = self.study.get_trials(deepcopy=False, states=(self.states.RUNNING,))
            for cell in cells:
                with lock_of(cell.folder) as lock:
                    if lock is None or any(self._cell_of(trial) is cell for trial in waiting):
                        continue
                for trial in begun:
                    if self._cell_of(trial) is cell:
                        self.study.tell(trial.number, state=self.states.FAIL)
                self.study.enqueue_trial(dict(cell.values))

    def _cell_of(self, trial: Any) -> Cell | None:
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        return self.cells.get(tuple(params.get(name) for name in self.names))


def _figure(cell: Cell) -> float:
    """What Optuna has as a trial's value: the top-1 that was measured last, or how many rounds there were."""
    summary = run_folder.read_summary(cell.folder)
    values = (summary.get(name) for name in ("after_top1", "rounds"))
    return next((float(value) for value in values if value is not None and math.isfinite(value)), 0.0)


class Workers:
    """Play a grid's cells, so many at a time, until all are done or have failed."""

    def __init__(self, grid: Grid, queue: Queue, children: Children, tell: Callable[[Cell, int], None]) -> None:
        self.grid, self.queue, self.children, self.tell = grid, queue, children, tell
        self.killed: set[Path] = set()

    def unsettled(self) -> list[Cell]:
        """Cells that are neither finished nor failed, nor were killed under this process's eyes."""
        failed = self.queue.failed()
        return [c for c in self.grid.cells if c.folder not in failed.keys() | self.killed and not c.finished]

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
            if (taken := self.queue.take()) is not None:
                self._play(*taken)
            elif unsettled := self.unsettled():
                self.queue.take_up_again(unsettled)
                self.children.stopped.wait(_PAUSE)
            else:
                return

    def _play(self, trial: Any, cell: Cell) -> None:
        with lock_of(cell.folder) as lock:
            if lock is None:  # an orphan of a worker that was killed
                self.queue.tell(trial, cell, INTERRUPTED)
                time.sleep(_PAUSE)
                return
            played = not cell.finished
            code = self._run(cell, lock) if played else 0
            code = INTERRUPTED if code < 0 else code
            if code == INTERRUPTED:
                self.killed.add(cell.folder)
            self.queue.tell(trial, cell, code)
        if played:
            self.tell(cell, code)

    def _run(self, cell: Cell, lock: BinaryIO) -> int:
        arguments = [self.grid.recipe, *self.grid.arguments(cell), "--out", str(cell.folder), "--resume", "auto"]
        return self.children.play(arguments, cell.folder, lock)
