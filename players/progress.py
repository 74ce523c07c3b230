"""A progress bar for what takes more than a moment."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import get_console
from rich.progress import track

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """The items, with a bar that goes away when they end; on a terminal only, and not beside another live display.

    Args:
        total: how many; None where that is not known.
    """
    displayed = hasattr(sys.stdout, "rich_proxied_file")  # rich's stand-in for the stream, while one is
    yield from track(items, title, total, transient=True, disable=displayed or not get_console().is_terminal)
