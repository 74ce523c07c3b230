"""How the commands say that they cannot go on: in one line, on standard error."""

from rich.console import Console

BAD_INPUT = 2
"""Exit code."""


def say(what: object) -> None:
    """Print it as it is."""
    Console(stderr=True).print(f"zerosum: {what}", style="red", soft_wrap=True, highlight=False, markup=False)


def refuse(error: Exception) -> int:
    """Say what is wrong with the input; returns the exit code."""
    say(error)
    return BAD_INPUT
