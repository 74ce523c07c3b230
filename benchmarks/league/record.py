"""What cells came to, in a file of comma-separated values that outlives their folders."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from filelock import FileLock

from benchmarks.league.rows import COLUMNS, TUNED_ON, Cell
from zerosum.runs.files import write_whole

Key = tuple[str, str, float | None, int]
_VARYING = re.compile(r" --(seed|quantized-lr) \S+")


class Record(NamedTuple):
    """A cell, top-1 in percent of it and of the full-precision network, distance from that on generated images (of
    logits, and share of one class in percent), what it took, and how many real images were looked at. ``images`` are
    those that the quantized network learned from, repetitions counted, where that is known; ``chosen`` is the step
    size."""

    column: str
    method: str
    step: float | None
    seed: int
    exit_code: int
    command: str
    chosen: bool = False
    top1: float | None = None
    teacher_top1: float | None = None
    divergence: float | None = None
    agreement_on_generated: float | None = None
    seconds: float | None = None
    rounds: int | None = None
    images: int | None = None
    measured_on: int | None = None

    @property
    def key(self) -> Key:
        """Of which there is one."""
        return self.column, self.method, self.step, self.seed

    def is_alike(self, other: "Record") -> bool:
        """Whether the commands differ in seed and step size at most."""
        return _VARYING.sub("", self.command) == _VARYING.sub("", other.command)

    def is_of(self, cell: Cell) -> bool:
        """Whether this is what the cell came to, with its options of today."""
        return (self.column, self.method, self.command) == (cell.column.name, cell.row.name, cell.command)


class Book:
    """Records in a file, to which several processes add, in turn."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, path.with_name(f".{path.name}.lock")

    def records(self) -> list[Record]:
        """All that there are."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [_parse(line) for line in csv.DictReader(file)]

    def add(self, record: Record) -> None:
        """In place of one of the same key, and of those of its method that were played with other options. The file has
        all records at any time, or all but this."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            kept = (other for other in self.records() if other.key[:2] != record.key[:2] or other.is_alike(record))
            others = [other for other in kept if other.key != record.key]
            content = io.StringIO(newline="")
            writer = csv.writer(content, lineterminator="\n")
            writer.writerow(Record._fields)
            writer.writerows(map(_written, choose([*others, record])))
            write_whole(self.path, content.getvalue().encode())


def choose(records: Iterable[Record]) -> list[Record]:
    """In order, and of each method those marked as chosen that have the step size which, by now, left its network
    nearest to the full-precision one on generated images, by what its column says; real ones are not asked."""
    by = {column.name: column.by for column in COLUMNS}
    methods = defaultdict(list)
    for record in sorted(records, key=lambda record: (*record.key[:2], record.step or 0, record.seed)):
        methods[record.key[:2]].append(record)
    found = []
    for own in methods.values():
        measure = _disagreement if by.get(own[0].column) == "agreement" else _divergence
        tuned = [(measure(record), record.step) for record in own if record.seed == TUNED_ON]
        least, step = min(tuned, default=(math.inf, None), key=lambda pair: pair[0])
        found += [record._replace(chosen=least < math.inf and record.step == step) for record in own]
    return found


def _divergence(record: Record) -> float:
    known = record.exit_code == 0 and record.divergence is not None and math.isfinite(record.divergence)
    return record.divergence if known and record.divergence is not None else math.inf


def _disagreement(record: Record) -> float:
    agreement = record.agreement_on_generated
    return math.inf if record.exit_code != 0 or agreement is None else -agreement


_TYPES = get_type_hints(Record)


def _parse(line: dict[str, str]) -> Record:
    return Record(**{name: _value(_TYPES[name], text) for name, text in line.items()})


def _value(hint: Any, text: str) -> Any:
    if hint in (str, bool):
        return text if hint is str else text == "yes"
    if not text:
        return None
    return int(text) if hint in (int, int | None) else float(text)


def _written(record: Record) -> list[str]:
    return [_text(value) for value in record]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
