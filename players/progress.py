"""A progress bar for what takes more than a moment."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import get_console
from rich.progress import track

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """The items, with a bar that goes away when they end; on a terminal only."""
    yield from track(items, title, total, transient=True, disable=not get_console().is_terminal)
