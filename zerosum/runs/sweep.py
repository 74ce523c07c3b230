"""``python -m zerosum.sweep RECIPE --over NAME=VALUE,VALUE,... --out FOLDER [options of all runs]``: a run for each
combination of values.

  --over NAME=VALUE,...  an option of the recipe and its values; may be given again
  --out FOLDER           of all runs, each in a folder in it, with its output beside it in a .log
  --workers N            runs at a time; default: 1. Each has its share of the cores
  SWEEP.toml             in place of RECIPE: a file with recipe, out, workers, [over] (lists) and [options]

All else is given to every run: ``python -m zerosum.run RECIPE --help`` lists what there is.

What is done is what the folders say, so the same line goes on where it was, whatever ended it; started several times,
on one machine or on several that see the folder, the work is shared. At the end there are a table and curves of all
runs (zerosum.compare) in FOLDER. A run that failed keeps no other from being played; to try it again, remove its .log,
and its folder too if it is to begin anew.

Exit codes: 0; 2 for bad input; 130 when interrupted (Ctrl-C, SIGTERM), or where a run was; of runs that failed, theirs.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zerosum.runs import compare, inputs, run_folder
from zerosum.runs import recipe as recipes
from zerosum.runs.cells import Cell, Grid, Queue, Workers, words_of
from zerosum.runs.children import Children, output_of
from zerosum.runs.messages import BAD_INPUT, INTERRUPTED, flag, guarded, output, refuse, say

GRID = "sweep.json"
_OWN = {"out", "resume"}


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.replace("``", ""))
        return 0 if arguments else BAD_INPUT
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        grid, workers = _read(arguments)
        _check(grid)
        _begin(grid)
        queue = Queue(grid)
    except (ValueError, OSError) as error:
        return refuse(error)
    return _play(grid, queue, workers, run_folder.command(arguments, "sweep"))


def _play(grid: Grid, queue: Queue, workers: int, again: str) -> int:
    total, console = len(grid.cells), output()
    shown = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=total)

        def tell(cell: Cell, code: int) -> None:
            how = "played" if code == 0 else f"exit code {code}, see {output_of(cell.folder)}"
            console.print(f"{total - len(playing.unsettled())} of {total}: {cell}: {how}", soft_wrap=True)

        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))}
        playing = Workers(grid, queue, Children(environment=threads), tell)
        try:
            for _ in playing.play(workers):
                progress.update(task, completed=total - len(playing.unsettled()))
        except KeyboardInterrupt:
            say(f"interrupted; go on with\n{again}")
            return INTERRUPTED
    if finished := [str(cell.folder) for cell in grid.cells if cell.finished]:
        compare.main([*finished, "--out", str(grid.out)])
    failed = queue.failed()
    for cell in grid.cells:
        if cell.folder in failed:
            say(f"{cell}: exit code {failed[cell.folder]}, see {output_of(cell.folder)}")
    if playing.killed:
        say(f"some runs were interrupted; go on with\n{again}")
    return max(failed.values(), default=INTERRUPTED if playing.killed else 0)


def _read(arguments: Sequence[str]) -> tuple[Grid, int]:
    """What a command line asks for, and how many at a time.

    Raises:
        ValueError, OSError: it cannot be understood.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("recipe")
    parser.add_argument("--over", action="append", default=[])
    parser.add_argument("--out", type=inputs.expand)
    parser.add_argument("--workers", type=int)
    try:
        given, options = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    asked = _read_file(inputs.expand(given.recipe)) if given.recipe.endswith(".toml") else {"recipe": given.recipe}
    over: dict[str, Sequence[str]] = {name: list(map(_word, values)) for name, values in asked.get("over", {}).items()}
    for text in given.over:
        name, found, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not found or not name:
            raise ValueError(f"--over {text}: expected NAME=VALUE,VALUE,..., such as --over bits=w4a4,w3a3")
        if name in over:
            raise ValueError(f"--over {text}: {name} is given twice; give all its values at once")
        over[name] = [value.strip() for value in values.split(",")]
    out = given.out or (inputs.expand(asked["out"]) if "out" in asked else None)
    if out is None:
        raise ValueError("--out: expected a folder for all runs")
    workers = given.workers if given.workers is not None else asked.get("workers", 1)
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"--workers {workers}: expected a number of runs at a time, at least 1")
    fixed = [word for name, value in asked.get("options", {}).items() for word in words_of(name, _word(value))]
    return Grid(asked["recipe"], over, [*fixed, *options], out.absolute()), workers


def _read_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a TOML file ({error})") from error
    kinds = {"recipe": str, "out": str, "workers": int, "over": dict, "options": dict}
    for name, value in content.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise ValueError(f"{path}: {name} = {value!r}: expected recipe, out, workers, [over] and [options]")
    if "recipe" not in content:
        raise ValueError(f"{path}: expected recipe, the name or the file of one")
    for name, values in content.get("over", {}).items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: {name} = {values!r}: expected a list of values")
    return content


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(grid: Grid) -> None:
    """That every cell's options are some that the recipe takes.

    Raises:
        ValueError, OSError: they are not.
    """
    if not grid.over:
        raise ValueError("--over: expected at least one option and its values, such as --over seed=0,1,2")
    for name, values in grid.over.items():
        if name in _OWN:
            raise ValueError(f"--over {name}: every run has a folder of its own; expected an option of the recipe")
        if not values or "" in values or len(set(values)) < len(values):
            raise ValueError(f"--over {name}={','.join(values)}: expected one value or more, each once")
        if flag(name) in (option.partition("=")[0] for option in grid.options):
            raise ValueError(f"--over {name}: {flag(name)} is given for all runs too")
    if len({cell.folder for cell in grid.cells}) < len(grid.cells):
        raise ValueError("--over: some values differ in characters alone that no folder's name has")
    parse: Any = tyro.cli
    with recipes.beside(grid.recipe):
        recipe = recipes.load(grid.recipe)
        for cell in grid.cells:  # tyro itself says what it cannot understand, and ends with exit code 2
            options = parse(recipe.config, args=grid.arguments(cell), prog=f"python -m zerosum.run {recipe.name}")
            options.check()


def _begin(grid: Grid) -> None:
    """Make the folder, or see that it is of this very sweep.

    Raises:
        FileExistsError: it holds something else.
        OSError: it cannot be written.
    """
    path, content = grid.out / GRID, json.loads(json.dumps(grid.content))
    grid.out.mkdir(parents=True, exist_ok=True)
    with FileLock(grid.out / ".lock"):
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != content:
                raise FileExistsError(f"--out {grid.out}: the folder holds another sweep ({path}); name a new one")
            return
        if any(not entry.name.startswith(".") for entry in grid.out.iterdir()):
            raise FileExistsError(f"--out {grid.out}: the folder holds files already; name a new one")
        run_folder.write_json(path, content)
