"""How the commands speak, and how they say that they cannot go on: in one line, on standard error."""

import functools
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TextIO, TypeVar, cast

from rich.console import Console

ERROR, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes."""


T = TypeVar("T")


class Main(Protocol):
    """A command: takes its arguments, those of the process by default, and returns an exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_LONGEST = 500  # characters of an error's own message


class Outlet:
    """A stream that takes any text: what its encoding lacks is written as an escape. Where its reader has gone (a
    closed pipe, a terminal that hung up), it is ``gone``, and what is written goes nowhere."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self.gone = stream, stream is None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """All of ``text``, however it has to be spelt."""
        if self.stream is not None and not self.gone:
            try:
                self.stream.write(printable(text, self.encoding))
            except OSError:
                self._end()
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self.stream is not None and not self.gone:
            try:
                self.stream.flush()
            except OSError:
                self._end()

    def isatty(self) -> bool:
        """Whether a person looks on."""
        return self.stream is not None and not self.gone and self.stream.isatty()

    def _end(self) -> None:
        self.gone = True
        with suppress(OSError, ValueError, AttributeError):  # so that Python's own flush at its end fails no more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, cast(TextIO, self.stream).fileno())
            os.close(nowhere)


def output() -> Console:
    """What a command prints on: standard output, words as they are; in a notebook plain lines."""
    return _on(sys.stdout)


def reader_is_gone(console: Console) -> bool:
    """Whether nobody reads what an :func:`output` prints any more."""
    return isinstance(console.file, Outlet) and console.file.gone


def printable(text: str, encoding: str = "utf-8") -> str:
    """``text`` with escapes for what ``encoding`` cannot write: parts of files' names that are no UTF-8, say."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(what: object) -> None:
    """Print it as it is, on standard error."""
    from zerosum import ranks  # and with it torch

    who = f"rank {ranks.index()}: " if ranks.index() else ""
    _on(sys.stderr).print(f"zerosum: {who}{what}", style="red", soft_wrap=True)


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def refuse(error: Exception) -> int:
    """Say what is wrong with the input; returns the exit code. What all ranks know, the first says."""
    from zerosum import ranks

    if ranks.index() == 0 or not isinstance(error, ranks.Told):
        say(_line(error))
    return BAD_INPUT


def fault(error: BaseException) -> str:
    """An error that nobody expected, in one line: its type, its message, and the file and line that it came from; where
    there is one, of code that is in no library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, "<"))]
    where = "".join(f" ({frame.filename}:{frame.lineno})" for frame in (own or frames)[-1:])
    return f"{type(error).__name__}: {_line(error)}{where}"


def attempt(what: str, do: Callable[[], T], failed: list[str], who: str = "the run") -> T | None:
    """Do what ``who`` can do without, and return what it gives; an error is said, and added to ``failed``."""
    try:
        return do()
    except Exception as error:
        failed.append(f"{what}: {fault(error)}")
        say(f"{failed[-1]}; {who} goes on without")
        return None


def guarded(main: Main) -> Main:
    """A command that ends in no traceback: what nobody expected is said in a line, with exit code 1, and Ctrl-C gives
    exit code 130. So does a closed pipe where a command does nothing but print, its help, say; what it writes into
    files is written nevertheless, with the exit code of that."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            return INTERRUPTED
        except Exception as error:
            say(fault(error))
            return ERROR
        finally:
            for stream in (sys.stdout, sys.stderr):
                Outlet(stream).flush()

    return run


def traceback_of(error: BaseException) -> bytes:
    """For a file."""
    return printable("".join(traceback.format_exception(error))).encode()


def _on(stream: TextIO | None) -> Console:
    """A notebook is no terminal, though its kernel sets FORCE_COLOR, by which rich takes it for one; nor does rich get
    to show pages of HTML there, each line in one of its own."""
    outlet = cast(TextIO, Outlet(stream))
    terminal = False if Console().is_jupyter and not outlet.isatty() else None
    return Console(
        file=outlet, markup=False, highlight=False, emoji=False, force_jupyter=False, force_terminal=terminal
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split("\n")).strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
