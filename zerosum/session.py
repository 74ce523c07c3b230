"""Playing what a recipe made, in a folder: who watches, what is taken up again, what is kept."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from zerosum import checkpoints
from zerosum import folder as run_folder
from zerosum.checkpoints import whole_files
from zerosum.curves import draw_game
from zerosum.divergence import Diverged
from zerosum.match import Contest, Match, Outcome
from zerosum.randomness import seed_all
from zerosum.recipe import Options
from zerosum.refusals import attempt, fault, say
from zerosum.watchers import Checkpoints, ConsoleWatcher, Journal, Pictures, TensorBoard
from zerosum.watchers.journal import read as read_journal


class CannotResume(ValueError):
    """A checkpoint is damaged, or of another match."""


def play(made: Match | Contest, folder: Path, options: Options, console: Console) -> bool:
    """Play to the end, and write into ``folder`` what comes of it; False where it was interrupted.

    Matches that have a checkpoint go on from it. Those of a contest have a folder each, in ``folder``; one that
    diverges keeps the others from nothing.

    Raises:
        CannotResume: a match cannot go on from its checkpoints.
        Diverged: a match did; of a contest, after all that is to be written is.
        OSError: the folder cannot be written.
    """
    failed: list[str] = []
    diverged = None
    finish: Callable[[Path], Outcome] | None
    if isinstance(made, Match):
        if not _play_match(made, folder, options, console, failed):
            return False
        finish = partial(made.finish, made) if made.finish is not None else None
        account, closing = _account(made), _closing_line(made)
    else:
        matches = {}
        for name in made.matches:
            seed_all(options.seed)
            matches[name] = match = made.matches[name]()
            own = folder / name
            own.mkdir(exist_ok=True)
            console.rule(name)
            try:
                if not _play_match(match, own, options, console, failed):
                    return False
            except Diverged as error:
                diverged = error
                console.print(f"{name}: {error}", style="red", soft_wrap=True)
        finish = partial(made.finish, matches)
        account = {"matches": {name: _account(match) for name, match in matches.items()}}
        closing = f"{len(matches)} matches in {sum(match.seconds for match in matches.values()):.0f} s"
    figures = _finish(finish, folder, account, failed, console) if finish is not None else {}
    run_folder.write_json(folder / run_folder.SUMMARY, figures | account | _failures(failed))
    console.print(closing, soft_wrap=True)
    console.print(f"kept in {folder}", soft_wrap=True)
    if diverged is not None:
        raise diverged
    return True


def _finish(
    finish: Callable[[Path], Outcome], folder: Path, account: dict[str, Any], failed: list[str], console: Console
) -> dict[str, Any]:
    """The figures of what the recipe leaves behind. Where that fails, the summary has what there is to say without, and
    the run is to be finished by another try."""
    try:
        with whole_files(folder) as aside:
            for path in folder.iterdir():
                if path.is_dir() and path != aside:  # a contest's matches have one each
                    (aside / path.name).mkdir()
            outcome = finish(aside)
    except Exception as error:
        unfinished = {run_folder.UNFINISHED: fault(error)}
        run_folder.write_json(folder / run_folder.SUMMARY, account | _failures(failed) | unfinished)
        raise
    attempt("the table of results", lambda: console.print(outcome.table), failed)
    return outcome.figures | {"result": outcome.result}


def _failures(failed: list[str]) -> dict[str, Any]:
    """What a summary says of pictures and tables that could not be made."""
    return {"failed": failed} if failed else {}


def _play_match(match: Match, folder: Path, options: Options, console: Console, failed: list[str]) -> bool:
    """What fails without being needed is added to ``failed``. Raises CannotResume, Diverged, OSError, as :func:`play`
    does."""
    journal, pictures = Journal(folder / run_folder.METRICS), Pictures(folder)
    keeper = Checkpoints(folder, journal, options.checkpoint_every, options.checkpoints)
    watchers = [ConsoleWatcher(console), journal, pictures, keeper]
    if options.tensorboard:
        watchers.append(TensorBoard(folder))
    match.watchers = [*match.watchers, *watchers]
    _restore(match, folder, console)
    if options.step_scale is not None:
        for player in match.game.players:
            player.step_scale = options.step_scale

    def draw() -> None:
        with whole_files(folder) as aside:
            draw_game(read_journal(journal.path), aside / run_folder.GAME)

    try:
        with _finishing_the_round(match):
            _play_or_rewind(match, keeper, options, console)
    except Diverged:
        attempt("the picture of the game", draw, failed)
        raise
    failed += pictures.failed
    if match.over:
        attempt("the picture of the game", draw, failed)
    else:
        console.print(f"interrupted after round {match.round} of {match.rounds}; go on with")
    return match.over


def _restore(match: Match, folder: Path, console: Console) -> None:
    try:
        state, damaged = checkpoints.load_newest(folder)
        if state is None:
            return  # stopped before its first checkpoint: from the start
        match.load_state_dict(state)
    except checkpoints.Damaged as error:
        raise CannotResume(str(error)) from error
    except Exception as error:  # of any type: another recipe's state, or one from before it was edited
        raise CannotResume(f"{folder}: the checkpoint does not fit the recipe ({fault(error)})") from error
    for found in damaged:
        console.print(f"{found}; going on from the one before, of round {match.round}", style="red", soft_wrap=True)


def _play_or_rewind(match: Match, keeper: Checkpoints, options: Options, console: Console) -> None:
    while True:
        try:
            return match.play()
        except Diverged as error:
            if options.on_divergence == "stop" or match.rewinds >= options.max_rewinds:
                raise
            try:
                keeper.rewind(match)
            except checkpoints.Damaged as damaged:
                say(f"cannot go back: {damaged}")
                raise error from damaged
            scales = ", ".join(f"{player.name} × {player.step_scale:g}" for player in match.game.players)
            what = f"{error}; back to round {match.round}, rewind {match.rewinds} of {options.max_rewinds}"
            console.print(f"{what}; step sizes: {scales}", soft_wrap=True)


def _account(match: Match) -> dict[str, Any]:
    """What there is to say of any match."""
    verdict = match.verdict
    return {
        "rounds": match.round,
        "seconds": round(match.seconds, 1),
        "rewinds": match.rewinds,
        "stationary": verdict.stationary if verdict else None,
        "reason": verdict.reason if verdict else None,
    }


def _closing_line(match: Match) -> str:
    return f"{match.round} rounds in {match.seconds:.0f} s" + (f"; {match.verdict.reason}" if match.verdict else "")


@contextmanager
def _finishing_the_round(match: Match) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the match after the round being played; a second Ctrl-C breaks it off at once. In
    a thread that is not the main one, no signal arrives."""

    def stop(number: int, frame: FrameType | None) -> None:
        match.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    kept: dict[int, Callable[..., Any] | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        kept = {number: signal.signal(number, stop) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _signals() -> list[int]:
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none, and nohup wants it ignored
    heard = [] if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN else [hang_up]
    return [signal.SIGINT, signal.SIGTERM, *heard]
