"""Playing what a recipe made, in a folder: who watches, what is taken up again, what is kept."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from zerosum import folder as run_folder
from zerosum.match import Contest, Match
from zerosum.watchers import Checkpoints, ConsoleWatcher, Journal, draw_game
from zerosum.watchers.journal import read as read_journal


class CannotResume(ValueError):
    """A checkpoint is missing, damaged, or of another match."""


def restore(match: Match, folder: Path) -> None:
    """Put ``match`` where the newest checkpoint in ``folder`` stands.

    Raises:
        CannotResume: there is none, it is damaged, or it is of another match.
    """
    try:
        match.load_state_dict(run_folder.load_checkpoint(folder))
    except (KeyError, RuntimeError) as error:
        raise CannotResume(f"--resume {folder}: the checkpoint does not fit the recipe ({error})") from error
    except (ValueError, OSError) as error:
        raise CannotResume(str(error)) from error


def play(made: Match | Contest, folder: Path, seed: int, console: Console) -> bool:
    """Play to the end, and write into ``folder`` what comes of it; False where it was interrupted.

    The matches of a contest have a folder each, in ``folder``. Those that have a checkpoint there go on from it.

    Raises:
        CannotResume: a contest's match cannot go on from its checkpoint.
    """
    if isinstance(made, Match):
        if not _play_match(made, folder, console):
            return False
        outcome = made.finish(made, folder) if made.finish is not None else None
        account, closing = _account(made), _closing_line(made)
    else:
        matches = {}
        for name in made.matches:
            torch.manual_seed(seed)
            matches[name] = match = made.matches[name]()
            own = folder / name
            own.mkdir(exist_ok=True)
            if (own / run_folder.CHECKPOINT).is_file():
                restore(match, own)
            console.rule(name)
            if not _play_match(match, own, console):
                return False
        outcome = made.finish(matches, folder)
        account = {"matches": {name: _account(match) for name, match in matches.items()}}
        closing = f"{len(matches)} matches in {sum(match.seconds for match in matches.values()):.0f} s"
    figures = outcome.figures | {"result": outcome.result} if outcome is not None else {}
    run_folder.write_json(folder / run_folder.SUMMARY, figures | account)
    if outcome is not None:
        console.print(outcome.table)
    console.print(closing, soft_wrap=True, highlight=False)
    console.print(f"kept in {folder}", soft_wrap=True, highlight=False)
    return True


def _play_match(match: Match, folder: Path, console: Console) -> bool:
    journal = Journal(folder / run_folder.METRICS)
    match.watchers = [*match.watchers, ConsoleWatcher(console), journal, Checkpoints(folder, journal)]
    with _finishing_the_round(match):
        match.play()
    if match.over:
        draw_game(read_journal(journal.path), folder / "game.png")
    else:
        console.print(f"interrupted after round {match.round} of {match.rounds}; go on with", highlight=False)
    return match.over


def _account(match: Match) -> dict[str, Any]:
    """What there is to say of any match."""
    verdict = match.verdict
    return {
        "rounds": match.round,
        "seconds": round(match.seconds, 1),
        "stationary": verdict.stationary if verdict else None,
        "reason": verdict.reason if verdict else None,
    }


def _closing_line(match: Match) -> str:
    return f"{match.round} rounds in {match.seconds:.0f} s" + (f"; {match.verdict.reason}" if match.verdict else "")


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
