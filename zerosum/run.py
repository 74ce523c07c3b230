"""``python -m zerosum.run RECIPE [options]``: play a recipe's game and keep what comes of it.

RECIPE is the path of a recipe file (recipes/adasg.py) or the name of an installed one (adasg).
``python -m zerosum.run RECIPE --help`` lists its options.
"""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import tyro
from rich.console import Console

from zerosum import folder as run_folder
from zerosum import recipe as recipes
from zerosum.match import Match
from zerosum.watchers import Checkpoints, ConsoleWatcher, Journal, draw_game
from zerosum.watchers.journal import read as read_journal

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.replace("``", ""))
        print("Installed recipes:", ", ".join(recipes.installed()))
        return 0 if arguments else BAD_INPUT
    console, errors = Console(), Console(stderr=True)
    try:
        recipe = recipes.load(arguments[0])
        options = _options(recipe, arguments[1:])
        match = _set_up(recipe, options)
        if options.resume is None:
            run_folder.write_config(_out(options), recipe.name, options, arguments)
    except (ValueError, OSError) as error:  # what players and recipes raise for input they cannot work with
        errors.print(f"zerosum: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        return BAD_INPUT
    except KeyboardInterrupt:
        errors.print("zerosum: interrupted before the first round; nothing was written")
        return INTERRUPTED
    if _play(match, _out(options), console):
        return 0
    resume = f"python -m zerosum.run {arguments[0]} --resume {_out(options)}"
    console.print(f"interrupted after round {match.round} of {match.rounds}; go on with", highlight=False)
    console.print(resume, soft_wrap=True, highlight=False)
    return INTERRUPTED


def _options(recipe: recipes.Recipe, arguments: Sequence[str]) -> recipes.Options:
    """The options on the command line, over those of the run that is to be resumed, where one is."""
    parse: Any = tyro.cli
    program = f"python -m zerosum.run {recipe.name}"
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first_look.add_argument("--resume", type=Path)
    folder = first_look.parse_known_args(arguments)[0].resume
    if folder is None:
        options: recipes.Options = parse(recipe.config, args=arguments, prog=program)
        name = f"{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}"
        return options if options.out is not None else dataclasses.replace(options, out=Path("runs") / name)

    names = {field.name for field in dataclasses.fields(recipe.config)}
    kept = {name: value for name, value in run_folder.read_options(folder).items() if name in names}
    started = recipe.config(**kept | {"out": folder, "resume": folder})
    options = parse(recipe.config, args=arguments, prog=program, default=started)
    for name in sorted(names - {"device"}):
        if getattr(options, name) != getattr(started, name):
            raise ValueError(
                f"--resume {folder}: --{name.replace('_', '-')} {getattr(options, name)} differs from the run's "
                f"{getattr(started, name)}; a run goes on with the options it was started with"
            )
    return options


def _out(options: recipes.Options) -> Path:
    assert options.out is not None
    return options.out


def _set_up(recipe: recipes.Recipe, options: recipes.Options) -> Match:
    """Everything that bad input can break, before anything is written."""
    options.check()
    state = run_folder.load_checkpoint(options.resume) if options.resume is not None else None
    if state is None:
        run_folder.check_free(_out(options))
    torch.manual_seed(options.seed)
    match = recipe.make(options)
    if state is not None:
        try:
            match.load_state_dict(state)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"--resume {options.resume}: the checkpoint does not fit the recipe ({error})") from error
    return match


def _play(match: Match, out: Path, console: Console) -> bool:
    """Play the match and write into ``out`` what comes of it; False where it was interrupted."""
    journal = Journal(out / run_folder.METRICS)
    match.watchers = [*match.watchers, ConsoleWatcher(console), journal, Checkpoints(out, journal)]
    with _finishing_the_round(match):
        match.play()
    if not match.over:
        return False
    lines = read_journal(journal.path)
    figures: dict[str, Any] = {}
    draw_game(lines, out / "game.png")
    if match.finish is not None:
        outcome = match.finish(match, out)
        figures = outcome.figures
        console.print(outcome.table)
    verdict = match.verdict
    summary = figures | {
        "rounds": match.round,
        "seconds": round(match.seconds, 1),
        "balance_gap": verdict.figures.get("balance_gap_mean") if verdict else None,
        "stationary": verdict.stationary if verdict else None,
    }
    run_folder.write_json(out / run_folder.SUMMARY, summary)
    judged = f"; {verdict.reason}" if verdict else ""
    console.print(f"{match.round} rounds in {match.seconds:.0f} s{judged}", soft_wrap=True, highlight=False)
    console.print(f"kept in {out}", soft_wrap=True, highlight=False)
    return True


@contextmanager
def _finishing_the_round(match: Match) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the match after the round being played; a second Ctrl-C breaks it off at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        match.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
