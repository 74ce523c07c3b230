"""``python -m zerosum.run RECIPE [options]``: play a recipe's game and keep what comes of it.

RECIPE is the path of a recipe file (recipes/adasg.py) or the name of an installed one (adasg).
``python -m zerosum.run RECIPE --help`` lists its options.

Exit codes: 2 for bad input, 3 where the game diverged, 4 where the run's folder could not be written, 130 when
interrupted; after the last three, --resume goes on.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from zerosum import folder as run_folder
from zerosum import recipe as recipes
from zerosum import session
from zerosum.divergence import Diverged
from zerosum.match import Contest, Match
from zerosum.memory import keep_freed_memory
from zerosum.randomness import seed_all
from zerosum.refusals import BAD_INPUT, refuse, say
from zerosum.watchers.tensorboard import summary_writer

DIVERGED, CANNOT_WRITE, INTERRUPTED = 3, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for bad input, 3 where the game diverged, 4 where the run's
    folder could not be written, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.replace("``", ""))
        print("Installed recipes:", ", ".join(recipes.installed()))
        return 0 if arguments else BAD_INPUT
    console = Console()
    keep_freed_memory()
    try:
        recipe = recipes.load(arguments[0])
        options = _options(recipe, arguments[1:])
        made = _set_up(recipe, options)
        folder = _out(options)
        if options.resume is None:
            run_folder.write_config(folder, recipe.name, options, arguments)
        held = run_folder.hold(folder)
        if options.resume is not None:
            run_folder.note_resumption(folder, arguments)
    except (ValueError, OSError) as error:  # what players and recipes raise for input they cannot work with
        return refuse(error)
    except KeyboardInterrupt:
        say("interrupted before the first round; nothing was written")
        return INTERRUPTED
    with held:
        return _play(made, options, run_folder.command([arguments[0], "--resume", str(folder)]), console)


def _play(made: Match | Contest, options: recipes.Options, again: str, console: Console) -> int:
    """Returns the exit code; where there is more to play, ``again`` is the line that goes on."""
    folder = _out(options)
    try:
        if session.play(made, folder, options, console):
            return 0
    except session.CannotResume as error:
        return refuse(error)
    except Diverged as error:
        say(f"{error}; the last good state is kept in {folder}")
        if isinstance(made, Match):
            smaller = min(player.step_scale for player in made.game.players) / 2
            say(f"go on with a smaller step:\n{again} --step-scale {smaller:g}")
            say(f"or let it find one:\n{again} --on-divergence rewind")
        return DIVERGED
    except OSError as error:
        say(f"{error}; the last good state is kept in {folder}; when this is mended, go on with\n{again}")
        return CANNOT_WRITE
    except KeyboardInterrupt:
        say("broken off within a round; go on from the last checkpoint with")
    console.print(again, soft_wrap=True, highlight=False, markup=False)
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
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}  # as before JSON
    started = recipe.config(**kept | {"out": folder, "resume": folder})
    options = parse(recipe.config, args=arguments, prog=program, default=started)
    for name in sorted(names - recipes.MAY_DIFFER):
        if getattr(options, name) != getattr(started, name):
            raise ValueError(
                f"--resume {folder}: --{name.replace('_', '-')} {getattr(options, name)} differs from the run's "
                f"{getattr(started, name)}; a run goes on with the options it was started with"
            )
    return options


def _out(options: recipes.Options) -> Path:
    assert options.out is not None
    return options.out


def _set_up(recipe: recipes.Recipe, options: recipes.Options) -> Match | Contest:
    """Everything that bad input can break, before anything is written."""
    options.check()
    if options.tensorboard:
        summary_writer()
    if options.resume is None:
        run_folder.check_free(_out(options))
    seed_all(options.seed)
    return recipe.make(options)


if __name__ == "__main__":
    sys.exit(main())
