"""``python -m zerosum.sweep RECIPE --over NAME=VALUE,VALUE,... --out FOLDER [options of all runs]``: a run for each
combination of values.

  --over NAME=VALUE,...  an option of the recipe and its values; may be given again. NAME:PART=VALUE,... is the option
                         with PART=VALUE: --over layer_bits:head=w2a8,w4a8
  --out FOLDER           of all runs, each in a folder in it, with its output beside it in a .log
  --workers N            runs at a time; default: 1. Each has its share of the cores
  --budget N             a search in place of the grid: N runs, each chosen by what came of those before (Optuna's TPE)
  --by FIGURE,...        figures of summary.json that a search makes small; default: divergence,quantized_bytes: how far
                         a quantized network is from full precision on generated images, and its size
  SWEEP.toml             in place of RECIPE: a file with recipe, out, workers, budget, by, [over] (lists) and [options]

All else is given to every run: ``python -m zerosum.run RECIPE --help`` lists what there is.

What is done is what the folders say, so the same line goes on where it was, whatever ended it; started several times,
on one machine or on several that see the folder, the work is shared. At the end there are a table and curves of all
runs (zerosum.compare) in FOLDER; of a search, of those than which no other is better in all figures. A run that failed
keeps no other from being played; to try it again, remove its .log, and its folder too if it is to begin anew.

Exit codes: 0; 2 for bad input; 130 when interrupted (Ctrl-C, SIGTERM), or where a run was; of runs that failed, theirs.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zerosum.runs import compare, inputs, run_folder
from zerosum.runs import recipe as recipes
from zerosum.runs.cells import Cell, Space, words_of
from zerosum.runs.children import Children, output_of
from zerosum.runs.messages import BAD_INPUT, INTERRUPTED, flag, guarded, output, refuse, say
from zerosum.runs.trials import Trials
from zerosum.runs.workers import Workers

GRID = "sweep.json"
_OWN = {"out", "resume"}
_BY = "divergence,quantized_bytes"


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.replace("``", ""))
        return 0 if arguments else BAD_INPUT
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asked = _read(arguments)
        _check(asked)
        _begin(asked)
        trials = Trials(asked.space, asked.budget, asked.by)
    except (ValueError, OSError) as error:
        return refuse(error)
    return _play(trials, asked.workers, run_folder.command(arguments, "sweep"))


def _play(trials: Trials, workers: int, again: str) -> int:
    total, console, space = trials.total, output(), trials.space
    shown = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=total)

        def tell(cell: Cell, code: int) -> None:
            how = "played" if code == 0 else f"exit code {code}, see {output_of(cell.folder)}"
            console.print(f"{done()} of {total}: {cell}: {how}", soft_wrap=True)

        def done() -> int:
            left = len(playing.unsettled())
            return total - left if trials.budget is None else len(trials.cells()) - left

        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))}
        playing = Workers(trials, Children(environment=threads), tell)
        try:
            for _ in playing.play(workers):
                progress.update(task, completed=done())
        except KeyboardInterrupt:
            say(f"interrupted; go on with\n{again}")
            return INTERRUPTED
        except ValueError as error:  # no such figure
            return refuse(error)
    shown_at_end = trials.cells() if trials.budget is None else trials.best()
    if finished := [str(cell.folder) for cell in shown_at_end if cell.finished]:
        compare.main([*finished, "--out", str(space.out)])
    failed = trials.failed()
    for cell in trials.cells():
        if cell.folder in failed:
            say(f"{cell}: exit code {failed[cell.folder]}, see {output_of(cell.folder)}")
    if playing.killed:
        say(f"some runs were interrupted; go on with\n{again}")
    return max(failed.values(), default=INTERRUPTED if playing.killed else 0)


class Asked(NamedTuple):
    """What a command line asks for."""

    space: Space
    workers: int
    budget: int | None
    by: tuple[str, ...]

    @property
    def content(self) -> dict[str, Any]:
        """By which a sweep is known again."""
        space = self.space
        over = {name: list(values) for name, values in space.over.items()}
        search = {} if self.budget is None else {"budget": self.budget, "by": list(self.by)}
        return {"recipe": space.recipe, "over": over, "options": list(space.options)} | search


def _read(arguments: Sequence[str]) -> Asked:
    """Raises ValueError or OSError for what cannot be understood."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("recipe")
    parser.add_argument("--over", action="append", default=[])
    parser.add_argument("--out", type=inputs.expand)
    for name in ("--workers", "--budget"):
        parser.add_argument(name, type=int)
    parser.add_argument("--by")
    try:
        given, options = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    file = _read_file(inputs.expand(given.recipe)) if given.recipe.endswith(".toml") else {"recipe": given.recipe}
    over: dict[str, Sequence[str]] = {name: list(map(_word, values)) for name, values in file.get("over", {}).items()}
    for text in given.over:
        name, found, values = text.partition("=")
        name = name.strip().removeprefix("--")
        name = name.replace("-", "_") if ":" not in name else name
        if not found or not name:
            raise ValueError(f"--over {text}: expected NAME=VALUE,VALUE,..., such as --over bits=w4a4,w3a3")
        if name in over:
            raise ValueError(f"--over {text}: {name} is given twice; give all its values at once")
        over[name] = [value.strip() for value in values.split(",")]
    out = given.out or (inputs.expand(file["out"]) if "out" in file else None)
    if out is None:
        raise ValueError("--out: expected a folder for all runs")
    numbers = {name: value for name in ("workers", "budget") if (value := file.get(name)) is not None}
    numbers |= {name: value for name in ("workers", "budget") if (value := getattr(given, name)) is not None}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"--{name} {value}: expected a number of runs, at least 1")
    by = given.by or file.get("by")
    if by is not None and "budget" not in numbers:
        raise ValueError(f"--by {by}: only of a search; expected --budget too, how many runs it has")
    fixed = [word for name, value in file.get("options", {}).items() for word in words_of(name, _word(value))]
    space = Space(file["recipe"], over, [*fixed, *options], out.absolute())
    return Asked(space, numbers.get("workers", 1), numbers.get("budget"), tuple((by or _BY).split(",")))


def _read_file(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a TOML file ({error})") from error
    kinds = {"recipe": str, "out": str, "workers": int, "budget": int, "by": str, "over": dict, "options": dict}
    for name, value in content.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise ValueError(
                f"{path}: {name} = {value!r}: expected recipe, out, workers, budget, by, [over] and [options]"
            )
    if "recipe" not in content:
        raise ValueError(f"{path}: expected recipe, the name or the file of one")
    for name, values in content.get("over", {}).items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: {name} = {values!r}: expected a list of values")
    return content


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(asked: Asked) -> None:
    """That the options are some that the recipe takes, in every combination; of a search, that each value is.

    Raises:
        ValueError, OSError: they are not.
    """
    space = asked.space
    if not space.over:
        raise ValueError("--over: expected at least one option and its values, such as --over seed=0,1,2")
    for name, values in space.over.items():
        if name in _OWN:
            raise ValueError(f"--over {name}: every run has a folder of its own; expected an option of the recipe")
        if not values or "" in values or len(set(values)) < len(values):
            raise ValueError(f"--over {name}={','.join(values)}: expected one value or more, each once")
        if flag(name) in (option.partition("=")[0] for option in space.options):
            raise ValueError(f"--over {name}: {flag(name)} is given for all runs too")
    most = max(map(len, space.over.values()))
    each = [{name: values[i % len(values)] for name, values in space.over.items()} for i in range(most)]
    cells = space.cells if asked.budget is None else [space.cell(values) for values in each]
    if len({cell.folder for cell in cells}) < len(cells):
        raise ValueError("--over: some values differ in characters alone that no folder's name has")
    parse: Any = tyro.cli
    with recipes.beside(space.recipe):
        recipe = recipes.load(space.recipe)
        for cell in cells:  # tyro itself says what it cannot understand, and ends with exit code 2
            options = parse(recipe.config, args=space.arguments(cell), prog=f"python -m zerosum.run {recipe.name}")
            options.check()


def _begin(asked: Asked) -> None:
    """Make the folder, or see that it is of this very sweep.

    Raises:
        FileExistsError: it holds something else.
        OSError: it cannot be written.
    """
    out, content = asked.space.out, asked.content
    path = out / GRID
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != content:
                raise FileExistsError(f"--out {out}: the folder holds another sweep ({path}); name a new one")
            return
        if any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise FileExistsError(f"--out {out}: the folder holds files already; name a new one")
        run_folder.write_json(path, content)
