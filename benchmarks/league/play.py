"""Cells, played by processes; what is done stays done, and what was begun goes on."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.league.held_out import HeldOut
from benchmarks.league.record import Book, Record, choose
from benchmarks.league.rows import BATCH, TUNED_ON, Cell, Column, Row
from zerosum.players import QUANTIZED, load_quantized
from zerosum.runs import run_folder
from zerosum.runs.children import PROGRAM, Children, lock_of
from zerosum.runs.messages import INTERRUPTED

_PAUSE = 1.0  # seconds, while others play all that there is


def cells_of(column: Column, row: Row, records: Sequence[Record]) -> list[Cell]:
    """Those to play, as far as is known by now: all step sizes with one seed, then the chosen one with the others; or
    with all seeds, the one that was chosen in another column."""
    if row.learns and column.steps_of:
        steps = chosen_elsewhere(column, row, records)
        return [Cell(column, row, step, seed) for step in steps for seed in column.seeds]
    tuning = [Cell(column, row, step, TUNED_ON) for step in row.step_sizes]
    found = [record for record in records if any(map(record.is_of, tuning))]
    chosen = [record.step for record in choose(found) if record.chosen]
    if len(found) < len(tuning) or not chosen:
        return tuning
    return tuning + [Cell(column, row, chosen[0], seed) for seed in column.seeds if seed != TUNED_ON]


def chosen_elsewhere(column: Column, row: Row, records: Sequence[Record]) -> list[float | None]:
    """The step size that was chosen for a row in the column whose step sizes this one takes; none, where it was not
    played with all of them there."""
    found = [record for record in records if (record.column, record.method) == (column.steps_of, row.name)]
    if {record.step for record in found if record.seed == TUNED_ON} < set(row.step_sizes):
        return []
    return [record.step for record in choose(found) if record.chosen][:1]


class League:
    """Columns and rows, played in folders below ``out`` by so many processes at a time.

    Args:
        held_out: of each column, by its name.
        files: what the commands' variables stand for.
        tell: is called whenever a record was added, and with a line for each cell that failed.
        program: plays a run, as ``python -m zerosum.run`` does.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        out: Path,
        book: Book,
        held_out: Mapping[str, HeldOut],
        files: dict[str, str],
        tell: Callable[[str | None], None] = lambda said: None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.pairs = [(column, row) for column in columns for row in rows]
        self.out, self.book, self.held_out, self.files = out, book, held_out, files
        self.tell = tell
        self.children = Children(program, {"OMP_NUM_THREADS": "1"})
        self._killed: set[Cell] = set()

    def due(self) -> list[Cell]:
        """Cells without a record."""
        records = self.book.records()
        cells = [cell for pair in self.pairs for cell in cells_of(*pair, records)]
        return [cell for cell in cells if not any(record.is_of(cell) for record in records)]

    @property
    def left(self) -> int:
        """How many are to be played, those counted too that wait for a step size; none of a row that has none left."""
        records, count = self.book.records(), 0
        for column, row in self.pairs:
            cells = cells_of(column, row, records)
            undone = sum(not any(record.is_of(cell) for record in records) for cell in cells)
            waiting = undone and not column.steps_of and len(cells) == len(row.step_sizes)
            count += undone + (len(set(column.seeds) - {TUNED_ON}) if waiting else 0)
        return count

    def play(self, workers: int) -> None:
        """All to the end. Where it is interrupted, so are the processes, and each keeps its state."""
        with ThreadPoolExecutor(workers) as pool:
            try:
                done, _ = wait([pool.submit(self._work) for _ in range(workers)], return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                self.children.stop()

    def _work(self) -> None:
        while not self.children.stopped.is_set():
            due = [cell for cell in self.due() if cell not in self._killed]
            if not due:
                return
            if not any(self._take(cell) for cell in due):
                time.sleep(_PAUSE)

    def _take(self, cell: Cell) -> bool:
        """Play a cell to its end, unless another thread or process does, or did in the meantime."""
        folder = self.folder(cell)
        with lock_of(folder) as lock:
            if lock is not None and cell in self.due():
                self._play(cell, folder, lock)
            return lock is not None

    def folder(self, cell: Cell) -> Path:
        """Where it is played."""
        return self.out / cell.column.name / cell.name.replace(" ", "_")

    def _play(self, cell: Cell, folder: Path, lock: BinaryIO) -> None:
        code = 0 if _summary(folder) else self._run(cell, folder, lock)
        if code < 0 or code == INTERRUPTED:
            self._killed.add(cell)  # started again, the league goes on with it
            return
        found = self._measured(cell, folder) if code == 0 else {}
        self.book.add(Record(cell.column.name, cell.row.name, cell.step, cell.seed, code, cell.command, **found))
        self.tell(f"{folder}: exit code {code}, see {folder}.log" if code else None)

    def _run(self, cell: Cell, folder: Path, lock: BinaryIO) -> int:
        arguments = [*cell.arguments(self.files), "--out", str(folder), "--resume", "auto"]
        return self.children.play(arguments, folder, lock)

    def _measured(self, cell: Cell, folder: Path) -> dict[str, Any]:
        summary = run_folder.read_summary(folder)
        divergence, agreement = self.held_out[cell.column.name].measure(load_quantized(folder / QUANTIZED))
        matches = list(summary["matches"].values()) if "matches" in summary else [summary]
        return {
            "top1": summary.get("after_top1"),
            "teacher_top1": summary.get("teacher_top1"),
            "divergence": divergence,
            "agreement_on_generated": agreement,
            "seconds": sum(match["seconds"] for match in matches),
            "rounds": sum(match["rounds"] for match in matches),
            "images": _learned(cell),
            "measured_on": summary.get("images"),
        }


def _learned(cell: Cell) -> int | None:
    """Images, repetitions counted, from which the quantized network learns in the game."""
    return cell.rounds * BATCH * cell.row.steps if cell.row.learns and not cell.row.blocks else None


def _summary(folder: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return run_folder.read_summary(folder)
    return {}
