"""The page: tables, between marks in text that is written by hand, and a figure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.stats import t

from benchmarks.league.figure import draw
from benchmarks.league.record import Record
from benchmarks.league.rows import BASELINE, COLUMNS, GAME, METHODS
from zerosum.runs.files import write_whole

_HEADER = (
    *("method", "top-1", "±", "seeds", "95 %", f"beside {BASELINE}", "divergence", "agreement"),
    *("seconds", "rounds", "images", "step size"),
)
_DIVERGED = 3
_EMPTY = "Not played yet."


class Spread(NamedTuple):
    """Of values: their mean, standard deviation, and half the width of the mean's 95 % interval (Student's t); the two
    are NaN of one value alone."""

    mean: float
    deviation: float
    half_width: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        count, mean = len(values), statistics.fmean(values)
        if count < 2:
            return cls(mean, math.nan, math.nan, count)
        deviation = statistics.stdev(values)
        return cls(mean, deviation, float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count), count)


class Standing(NamedTuple):
    """A method in a column: its top-1 over seeds; how far it is above the baseline with the same seeds, where they have
    some in common; its records."""

    method: str
    top1: Spread
    difference: Spread | None
    records: list[Record]

    @property
    def seconds(self) -> float | None:
        """The least over seeds: others compute on the machine too."""
        return min((record.seconds for record in self.records if record.seconds is not None), default=None)

    def mean(self, name: str) -> float | None:
        """Of another figure, where all have it."""
        values = [getattr(record, name) for record in self.records]
        return None if None in values else statistics.fmean(values)


def standings(records: Sequence[Record], column: str, methods: Sequence[str]) -> list[Standing]:
    """Of these methods in a column, best first, with their chosen step sizes."""
    by_seed: dict[str, dict[int, Record]] = {}
    for record in records:
        if record.column == column and record.chosen and record.exit_code == 0 and record.top1 is not None:
            by_seed.setdefault(record.method, {})[record.seed] = record
    found, baseline = [], _top1(by_seed.get(BASELINE, {}))
    for method in by_seed.keys() & set(methods):
        own = _top1(by_seed[method])
        both = [own[seed] - baseline[seed] for seed in own.keys() & baseline.keys()] if method != BASELINE else []
        difference = Spread.of(both) if both else None
        found.append(Standing(method, Spread.of([*own.values()]), difference, [*by_seed[method].values()]))
    return sorted(found, key=lambda standing: (-standing.top1.mean, standing.method))


def _top1(records: dict[int, Record]) -> dict[int, float]:
    return {seed: record.top1 for seed, record in records.items() if record.top1 is not None}


def table(records: Sequence[Record], column: str, methods: Sequence[str]) -> str:
    """Of a column: the methods' standings, what was measured, what failed, and the commands."""
    found = standings(records, column, methods)
    if not found:
        return _EMPTY
    lines = [f"| {' | '.join(_HEADER)} |", f"|{'---|' * len(_HEADER)}", *map(_line, found), "", _measured(found)]
    failed = [r for r in records if r.column == column and r.method in methods and r.exit_code != 0]
    if failed:
        lines += ["", f"Failed: {'; '.join(map(_failure, failed))}."]
    commands = [min(standing.records, key=lambda record: record.seed).command for standing in found]
    return "\n".join([*lines, "", "```sh", *commands, "```"])


def _line(standing: Standing) -> str:
    top1, beside, step = standing.top1, standing.difference, standing.records[0].step
    cells = [
        standing.method,
        f"{top1.mean:.1f}",
        _number(top1.deviation),
        str(top1.seeds),
        _around(top1.half_width),
        "" if beside is None else f"{beside.mean:+.1f} {_around(beside.half_width)}".strip(),
        _number(standing.mean("divergence"), 3),
        _number(standing.mean("agreement_on_generated")),
        _number(standing.seconds, 0),
        _number(standing.mean("rounds"), 0),
        _number(standing.mean("images"), 0),
        "" if step is None else f"{step:g}",
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, decimals: int = 1) -> str:
    return "" if value is None or math.isnan(value) else f"{value:,.{decimals}f}"


def _around(half_width: float) -> str:
    return "" if math.isnan(half_width) else f"± {half_width:.1f}"


def _measured(found: Sequence[Standing]) -> str:
    """What a difference has to be measured by."""
    record, share = found[0].records[0], found[0].top1.mean / 100
    assert record.measured_on is not None
    assert record.teacher_top1 is not None
    error = 100 * math.sqrt(share * (1 - share) / record.measured_on)
    return (
        f"Top-1 in percent of the last state, on {record.measured_on:,} real images, of which full precision has "
        f"{record.teacher_top1:.1f} % right; one standard error of one network with {100 * share:.1f} % is {error:.1f} "
        f"points. ± is the standard deviation over seeds, 95 % half an interval of the mean (Student's t), beside "
        f"{BASELINE} the difference with the same seeds and half its interval. Divergence, by which step sizes were "
        "chosen, and agreement (percent) are with full precision on generated images. Images are those that the "
        "quantized network learned from in the game, repetitions counted. Seconds are of the rounds, images "
        "included, of its fastest seed."
    )


def _failure(record: Record) -> str:
    step = "" if record.step is None else f" with {record.step:g}"
    why = "diverged" if record.exit_code == _DIVERGED else f"exit code {record.exit_code}"
    return f"{record.method}{step}, seed {record.seed} ({why})"


_END = "<!-- end -->"
_FIGURE = "<!-- figure -->"
_TABLES = {"table": [row.name for row in METHODS], "game": [BASELINE, *(row.name for row in GAME)]}
_TITLES = {"table": "Methods", "game": "What the game is worth"}


def _mark(table: str, column: str) -> str:
    return f"<!-- {table}: {column} -->"


def blank_page() -> str:
    """Headings and marks alone."""
    lines = ["# The league", "", _FIGURE, _END]
    for column in COLUMNS:
        lines += ["", f"## {column.backbone} at {column.bits}"]
        for name, title in _TITLES.items():
            lines += ["", f"### {title}: {column.name}", "", _mark(name, column.name), _END]
    return "\n".join(lines) + "\n"


def filled(page: str, contents: Mapping[str, str]) -> str:
    """The page with what is between each of these marks and its end written anew, and all else as it was."""
    for mark, content in contents.items():
        first, found, rest = page.partition(mark)
        if found:
            page = f"{first}{mark}\n\n{content}\n\n{_END}{rest.partition(_END)[2]}"
    return page


def write_page(records: Sequence[Record], path: Path) -> None:
    """The page, and the figure beside it."""
    figure = path.with_suffix(".png")
    named = {column.name: standings(records, column.name, _TABLES["table"]) for column in COLUMNS}
    drawn = draw({name: found for name, found in named.items() if found}, figure)
    contents = {
        _mark(name, column.name): table(records, column.name, methods)
        for column in COLUMNS
        for name, methods in _TABLES.items()
    }
    contents[_FIGURE] = f"![Top-1 over seconds]({figure.name})" if drawn else _EMPTY
    page = path.read_text(encoding="utf-8") if path.exists() else blank_page()
    write_whole(path, filled(page, contents).encode())
