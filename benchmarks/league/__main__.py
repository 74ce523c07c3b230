"""``python -m benchmarks.league``: play what is not played yet, and write the page."""

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.league.held_out import held_out
from benchmarks.league.page import write_page
from benchmarks.league.play import League, cells_of
from benchmarks.league.record import Book
from benchmarks.league.rows import COLUMNS, GAME, METHODS, Column, Row
from zerosum.runs.messages import INTERRUPTED, flag, guarded, output, refuse, say

_RECORD = Path(__file__).resolve().parents[2] / "docs" / "league.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Play methods of data-free quantization on the same networks, and write docs/league.csv, .md and .png.

    What has a line in the .csv is done, and played again only when its options were changed; to try a cell again that
    failed, remove its line, and its folder too if it is to begin anew. Ctrl-C ends it; started again, it goes on.
    """

    columns: str = "digits"
    """Networks at their bits, with commas between: digits, cifar-w3a3, cifar-w2a2, and, with the step sizes that were
    chosen for cifar-w3a3, cifar-w4a4 and lite0-w4a8."""
    methods: str = ""
    """Methods, with commas between, or one of the tables: methods, game. Default: all."""
    seeds: str = ""
    """Seeds, with commas between; step sizes are chosen with 0 in any case. Default: the column's."""
    rounds: int | None = None
    """Other rounds than the column's, to try things out; give another --record too."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What networks compute in while they play."""
    workers: int = 2
    """Runs at a time, of one thread each."""
    cifar_weights: Path | None = None
    """Weights of cifar_resnet20."""
    cifar_data: Path | None = None
    """Folder of CIFAR-10's test images, with one folder a class."""
    imagenet_data: Path | None = None
    """Folder of ImageNet's validation images, with one folder a class."""
    out: Path = Path("runs/league")
    """Where the runs' folders are; several processes may share it."""
    record: Path = _RECORD
    """The .csv; page and figure are beside it."""
    page_only: bool = False
    """Play nothing; write the page of what there is."""


def columns_of(options: Options) -> list[Column]:
    """Those that are asked for, as they are to be played.

    Raises:
        ValueError: there is no such column, or its files are not given.
    """
    known = {column.name: column for column in COLUMNS}
    seeds = tuple(map(int, _listed(options.seeds)))
    found = []
    for name in _listed(options.columns):
        if name not in known:
            raise ValueError(f"--columns {name}: expected some of {', '.join(known)}")
        column = known[name]._replace(precision=options.precision)
        if missing := [flag(file.lower()) for file in column.files if getattr(options, file.lower()) is None]:
            raise ValueError(f"--columns {name}: expected {' and '.join(missing)}")
        column = column if options.rounds is None else column.with_rounds(options.rounds)
        found.append(column._replace(seeds=seeds or column.seeds))
    return found


def rows_of(options: Options) -> list[Row]:
    """Those that are asked for.

    Raises:
        ValueError: there is no such row.
    """
    tables, known = {"methods": METHODS, "game": GAME}, {row.name: row for row in (*METHODS, *GAME)}
    found: list[Row] = []
    for name in _listed(options.methods) or tables:
        if name not in tables and name not in known:
            raise ValueError(f"--methods {name}: expected some of {', '.join([*tables, *known])}")
        found += tables.get(name) or [known[name]]
    return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def play(options: Options) -> None:
    """All that is asked for and not done yet."""
    columns, rows = columns_of(options), rows_of(options)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    files = {name: str(getattr(options, name.lower()).absolute()) for column in columns for name in column.files}
    book = Book(options.record)
    for column in columns:
        if unknown := [row.name for row in rows if not cells_of(column, row, book.records())]:
            expected = f"expected {column.steps_of} to be played first by {', '.join(unknown)}"
            raise ValueError(f"--columns {column.name}: {expected}")
    images = {column.name: held_out(column, files, out) for column in columns}
    shown = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*shown, console=output()) as progress:

        def tell(said: str | None) -> None:
            if said is not None:
                progress.console.print(said, soft_wrap=True)
            progress.update(task, completed=total - league.left)

        league = League(columns, rows, out, book, images, files, tell)
        total = league.left
        task = progress.add_task("cells", total=total)
        league.play(options.workers)
    if league.due():
        say("some runs were killed; to go on with them, start this again")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2 for bad input; 130 where it was interrupted, which leaves a page too."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parse: Any = tyro.cli
    options: Options = parse(Options, args=arguments, prog="python -m benchmarks.league")
    try:
        if not options.page_only:
            play(options)
    except ValueError as error:
        return refuse(error)
    except KeyboardInterrupt:
        say("interrupted; to go on, start it again")
        code = INTERRUPTED
    else:
        code = 0
    write_page(Book(options.record).records(), options.record.with_suffix(".md"))
    return code


if __name__ == "__main__":
    sys.exit(main())
