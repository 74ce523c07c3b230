"""``zerosum COMMAND ...``, or ``python -m zerosum COMMAND ...``.

Commands: run (play a recipe's game), sweep (many runs, with many options), report (one page about a run), compare
(finished runs side by side), export (a run's result for other runtimes). ``zerosum COMMAND --help`` says what each
takes; ``python -m zerosum.COMMAND`` is the same.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from zerosum.runs.messages import BAD_INPUT, guarded, say

COMMANDS = ("run", "sweep", "report", "compare", "export")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    if name in ("", "-h", "--help"):
        print(__doc__.replace("``", ""))
        return 0 if name else BAD_INPUT
    if name not in COMMANDS:
        say(f"{name}: no such command; expected one of {', '.join(COMMANDS)}")
        return BAD_INPUT
    code: int = import_module(f"zerosum.runs.{name}").main(rest)
    return code
