"""What is asked of a run from outside while it plays: to end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from zerosum import ranks
from zerosum.match import Match


@contextmanager
def finishing_the_round(match: Match, heard: list[int]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the match after the round being played, and are noted in ``heard``; a second
    Ctrl-C breaks it off at once. In a thread that is not the main one, no signal arrives."""

    def stop(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        match.stop()
        if ranks.count() == 1:  # of several, torchrun hands on what the terminal has told each of them already
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
