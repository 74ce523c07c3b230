"""Which cell comes next: a study of Optuna's in a journal file, which processes share.

What is done is what the runs' folders say. A worker that was killed leaves a trial that runs for ever, and a folder
whose lock is free: the next worker that has nothing else to do takes that up again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from zerosum.runs.cells import Cell, Space, figure_of
from zerosum.runs.children import lock_of, output_of
from zerosum.runs.messages import INTERRUPTED

JOURNAL = "sweep.log"
_CODE = "exit_code"


class Trials:
    """Cells to be played.

    Args:
        budget: how many, which Optuna's TPE chooses by what came of those before; None: all of the space.
        by: figures of a summary, of which less is better.

    Raises:
        ValueError: the package optuna is missing; the message has its install line.
    """

    def __init__(self, space: Space, budget: int | None = None, by: Sequence[str] = ()) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ImportError as error:
            raise ValueError("a sweep needs the package optuna; pip install 'zerosum[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.budget, self.by = space, budget, by if budget is not None else ()
        self._states, self._sampler = optuna.trial.TrialState, optuna.samplers.TPESampler
        choice = optuna.distributions.CategoricalDistribution
        self._choices: dict[str, Any] = {name: choice(values) for name, values in space.over.items()}
        self._lock = FileLock(space.out / f".{JOURNAL}.lock")
        storage = JournalStorage(JournalFileBackend(str(space.out / JOURNAL)))
        directions: list[Any] = ["minimize"] * max(1, len(self.by))
        with self._lock:
            self.study = optuna.create_study(
                study_name="sweep", storage=storage, load_if_exists=True, directions=directions
            )
            for cell in space.cells if budget is None else ():
                self.study.enqueue_trial(dict(cell.values), skip_if_exists=True)

    @property
    def total(self) -> int:
        """How many there are, or are to be."""
        return len(self.space.cells) if self.budget is None else self.budget

    def take(self) -> tuple[Any, Cell] | None:
        """A trial and its cell: one that waits, or one that is chosen now."""
        with self._lock:
            trials = self.study.get_trials(deepcopy=False)
            counted = [
                t for t in trials if self._whole(t) and (t.state is not self._states.FAIL or self._code(t) is not None)
            ]
            open_to_choice = self.budget is not None and len(counted) < self.budget
            if not open_to_choice and not any(trial.state is self._states.WAITING for trial in trials):
                return None
            # Several may be under way; the same choices again for the same trials before.
            self.study.sampler = self._sampler(seed=len(trials), constant_liar=True)
            trial = self.study.ask(self._choices)
        return trial, self.space.cell(trial.params)

    def tell(self, trial: Any, cell: Cell, code: int) -> None:
        """What a cell came to; nothing, where another took the trial for one that nobody plays, before its cell was
        locked: that one is taken up again, and found as it is.

        Raises:
            ValueError: its summary lacks a figure that the search goes by.
        """
        with self._lock:
            if self.study.get_trials(deepcopy=False)[trial.number].state is not self._states.RUNNING:
                return
            trial.set_user_attr(_CODE, code)
        if code == 0:
            self.study.tell(trial, [figure_of(cell, name) for name in self.by] or 0.0)
        else:
            self.study.tell(trial, state=self._states.FAIL)

    def cells(self) -> list[Cell]:
        """All of the space; of a search, those that were chosen so far."""
        if self.budget is None:
            return self.space.cells
        trials = filter(self._whole, self.study.get_trials(deepcopy=False))
        chosen = {tuple(values.items()): values for values in map(self._values, trials)}
        return [self.space.cell(values) for values in chosen.values()]

    def best(self) -> list[Cell]:
        """Of a search, the cells than which no other is better in all figures."""
        best = [self.space.cell(trial.params) for trial in self.study.best_trials]
        return list({cell.folder: cell for cell in best}.values())

    def failed(self) -> dict[Path, int]:
        """Exit codes of cells that failed, by their folders; not of those that were interrupted or killed, or of which
        nobody left the output there."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=(self._states.FAIL,)):
            code, folder = self._code(trial), self.space.cell(self._values(trial)).folder
            if code is not None and output_of(folder).exists():
                found[folder] = code
        return found

    def take_up_again(self, cells: Sequence[Cell]) -> None:
        """Let those wait that nobody plays."""
        with self._lock:
            waiting = self.study.get_trials(deepcopy=False, states=(self._states.WAITING,))
            begun = self.study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
            for cell in cells:
                with lock_of(cell.folder) as lock:
                    if lock is None or any(self._values(trial) == cell.values for trial in waiting):
                        continue
                for trial in begun:
                    if self._values(trial) == cell.values:
                        self.study.tell(trial.number, state=self._states.FAIL)
                self.study.enqueue_trial(dict(cell.values))

    def _whole(self, trial: Any) -> bool:
        """Whether all its options are chosen: a worker may be in the midst of it, or have been killed there."""
        return self._values(trial).keys() == self.space.over.keys()

    def _values(self, trial: Any) -> dict[str, str]:
        return dict(trial.params or trial.system_attrs.get("fixed_params", {}))

    def _code(self, trial: Any) -> int | None:
        """With which it failed by itself."""
        code: int = trial.user_attrs.get(_CODE, INTERRUPTED)
        return None if code == INTERRUPTED else code
