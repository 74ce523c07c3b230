"""``python -m zerosum.run RECIPE [options]``: play a recipe's game and keep what comes of it.

RECIPE is the path of a recipe file (recipes/adasg.py) or the name of an installed one (adasg).
``python -m zerosum.run RECIPE --help`` lists its options.

Exit codes: 1 for an error that nobody expected (its traceback is in error.txt, in the run's folder), 2 for bad input, 3
where the game diverged, 4 where a file could not be written or read, 130 when interrupted (Ctrl-C, SIGTERM, SIGHUP, or
nobody reads what is printed); from all but 2, --resume goes on.

``torchrun --nproc-per-node N -m zerosum.run RECIPE`` plays one game by N ranks.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from zerosum import ranks
from zerosum.divergence import Diverged
from zerosum.memory import keep_freed_memory
from zerosum.runs import inputs, run_folder
from zerosum.runs import recipe as recipes
from zerosum.runs.beginning import Beginning, begin
from zerosum.runs.experiment import Stage
from zerosum.runs.files import write_whole
from zerosum.runs.messages import (
    BAD_INPUT,
    ERROR,
    INTERRUPTED,
    fault,
    flag,
    guarded,
    output,
    reader_is_gone,
    refuse,
    say,
    traceback_of,
)
from zerosum.runs.options import AUTO, MAY_DIFFER, Options, decode, encode, flat, with_full_paths
from zerosum.runs.session import CannotResume, Session

DIVERGED, CANNOT_WRITE = 3, 4


class Finished(Exception):
    """There is nothing left to play."""


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or one of those above."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.replace("``", ""))
        print("Installed recipes:", ", ".join(recipes.installed()))
        return 0 if arguments else BAD_INPUT
    keep_freed_memory()
    with ExitStack() as held:
        try:
            held.enter_context(ranks.joined())
        except ValueError as error:
            return refuse(error)
        if ranks.index() > 0:  # the first one prints
            held.enter_context(redirect_stdout(held.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    """As one of the ranks, or alone."""
    with recipes.beside(arguments[0]), ExitStack() as held:
        try:
            experiment, first, options = _set_up(arguments, held)
        except Finished as finished:
            if ranks.index() == 0:
                say(finished)
            return 0
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:  # what players and recipes raise for input they cannot work with
            return refuse(error)
        except KeyboardInterrupt:
            say("interrupted before the first round")
            return INTERRUPTED
        if ranks.count() > 1:
            size = getattr(options, "batch_size", None)
            batch = "" if size is None else f"; of a batch of {size}, each has {ranks.share_of(size)}"
            output().print(f"one game, played by {ranks.count()} ranks{batch}")
        again = run_folder.command([arguments[0], "--resume", str(_out(options))])
        if ranks.index() > 0:
            aside = Path(held.enter_context(TemporaryDirectory(prefix="zerosum-")))
            options = dataclasses.replace(options, out=aside)
        return _play(Session(experiment, _out(options), options, output()), first, again)


def _play(session: Session, first: Stage, again: str) -> int:
    """Returns the exit code; where there is more to play, ``again`` is the line that goes on."""
    folder, console = session.folder, session.console
    try:
        if session.play(first):
            (folder / run_folder.TRACEBACK).unlink(missing_ok=True)  # of a try before this one
            console.print(f"kept in {folder}", soft_wrap=True)
            return 0
    except (CannotResume, ranks.Told) as error:
        return refuse(error)
    except Diverged as error:  # on all ranks
        if ranks.index() > 0:
            return DIVERGED
        say(f"{error}; the last good state is kept in {folder}")
        if not session.experiment.side_by_side:
            match = list(session.matches.values())[-1]
            smaller = min(player.step_scale for player in match.game.players) / 2
            say(f"go on with a smaller step:\n{again} --step-scale {smaller:g}")
            say(f"or let it find one:\n{again} --on-divergence rewind")
        return DIVERGED
    except ranks.Lost as error:
        say(f"{error}; the last good state is kept; when this is mended, go on with\n{again}")
        return ERROR
    except OSError as error:
        say(f"{error}; the last good state is kept; when this is mended, go on with\n{again}")
        return CANNOT_WRITE
    except KeyboardInterrupt:
        say("broken off within a round; go on from the last checkpoint with")
    except Exception as error:
        return _keep(error, folder, again)
    if reader_is_gone(console):
        say(f"interrupted, because nobody reads what is printed; go on with {again}")
    console.print(again, soft_wrap=True)
    return INTERRUPTED


def _keep(error: Exception, folder: Path, again: str) -> int:
    """Say what nobody expected, and keep its traceback for the recipe's author."""
    path, kept = folder / run_folder.TRACEBACK, "could not be kept"
    if ranks.index() > 0:  # whose folder does not stay
        sys.stderr.buffer.write(traceback_of(error))
        say(f"{fault(error)}; the last good state is kept; when this is mended, go on with {again}")
        return ERROR
    try:
        write_whole(path, traceback_of(error))
        kept = f"is in {path}"
    except OSError:
        pass
    say(f"{fault(error)}; its traceback {kept}; the last good state is kept; when this is mended, go on with {again}")
    return ERROR


def _set_up(arguments: Sequence[str], held: ExitStack) -> Beginning:
    """Everything that bad input can break, before anything is written; and then the run's folder, which is the first
    rank's as long as ``held`` is open."""
    recipe = ranks.together(lambda: recipes.load(arguments[0]))
    folder, finished = _resumed(arguments[1:])
    if folder is None:
        options = dataclasses.replace(_parse(recipe, arguments[1:]), resume=None)
    else:
        options = ranks.together(lambda: _of_resumed(recipe, folder, arguments[1:]))
        if finished:
            raise Finished(f"{folder}: that run is finished; its figures are in {folder / run_folder.SUMMARY}")

    def made() -> Beginning:
        if ranks.index() == 0 and folder is not None:
            held.enter_context(run_folder.hold(folder))
        elif ranks.index() == 0 and options.out is not None:
            run_folder.check_free(options.out)
        return begin(recipe, options, output())

    def begun(options: Options) -> Path:
        line = run_folder.command(arguments)
        if folder is not None:
            run_folder.note_resumption(folder, recipe, options, line)
            return folder
        out = run_folder.new_folder(recipe.name) if options.out is None else options.out
        held.enter_context(run_folder.claim(out))
        run_folder.write_config(out, recipe, dataclasses.replace(options, out=out), line)
        return out

    experiment, first, options = ranks.together(made)
    return Beginning(experiment, first, dataclasses.replace(options, out=ranks.from_first(lambda: begun(options))))


def _resumed(arguments: Sequence[str]) -> tuple[Path | None, bool]:
    """The folder of the run that is to go on; of ``--resume auto``, that of ``--out``, where a run was begun there, and
    whether that is finished.

    Raises:
        ValueError: ``auto`` without ``--out``, or a folder whose run is finished, by its name.
    """
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--resume", "--out"):
        first_look.add_argument(name, type=inputs.expand)
    given = first_look.parse_known_args(arguments)[0]
    if given.resume != AUTO:
        if given.resume is not None:
            run_folder.read_options(given.resume)
        return given.resume, False
    if given.out is None:
        raise ValueError("--resume auto: expected --out too, the folder in which the run begins or goes on")

    def found() -> tuple[bool, bool]:
        begun = (given.out / run_folder.CONFIG).exists()
        return begun, begun and run_folder.is_finished(given.out)

    begun, finished = ranks.from_first(found)  # before that one begins there
    return given.out if begun else None, finished


def _parse(recipe: recipes.Recipe, arguments: Sequence[str], **default: Options) -> Options:
    parse: Any = tyro.cli
    options: Options = parse(recipe.config, args=arguments, prog=f"python -m zerosum.run {recipe.name}", **default)
    return with_full_paths(options)


def _of_resumed(recipe: recipes.Recipe, folder: Path, arguments: Sequence[str]) -> Options:
    """The options on the command line, over those of the run that is to be resumed."""
    run_folder.check_recipe(folder, recipe)
    started = decode(recipe.config, run_folder.read_config(folder)["options"])
    started = dataclasses.replace(started, out=folder, resume=folder)
    options = _parse(recipe, arguments, default=started)
    if options.resume == AUTO:
        options = dataclasses.replace(options, out=folder, resume=folder)
    kept = run_folder.read_config(folder)["inputs"]
    now, then = flat(encode(options)), flat(encode(started))
    for name in sorted((now.keys() | then.keys()) - MAY_DIFFER):
        if now.get(name) != then.get(name) and not (name in kept and name in options.inputs()):
            raise ValueError(
                f"--resume {folder}: {flag(name)} {now.get(name)} differs from the run's {then.get(name)}; a run goes "
                "on with the options it was started with"
            )
    inputs.check(kept, options.inputs())
    return options


def _out(options: Options) -> Path:
    assert options.out is not None
    return options.out
