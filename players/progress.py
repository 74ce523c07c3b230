"""A progress bar for what takes more than a moment."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich import get_console
from rich.progress import track

T = TypeVar("T")
_silent = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """No bars, in this thread, until the end of the context."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def note(text: str) -> None:
    """Print a line, unless there is to be silence."""
    if not _silent.get():
        get_console().print(text, soft_wrap=True, markup=False, highlight=False)


def progress(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """The items, with a bar that goes away when they end; on a terminal only, and not beside another live display.

    Args:
        total: how many; None where that is not known.
    """
    displayed = hasattr(sys.stdout, "rich_proxied_file")  # rich's stand-in for the stream, while one is
    disable = _silent.get() or displayed or not get_console().is_terminal
    yield from track(items, title, total, transient=True, disable=disable)
