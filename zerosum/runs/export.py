"""``python -m zerosum.export RUN_DIR [options]``: write a finished run's result down for other runtimes.

RUN_DIR is the folder of the run; its recipe is not needed. Exit code 1 where --check finds that the exported file does
something else, 2 for bad input.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import tyro

from zerosum.runs import results
from zerosum.runs.inputs import expand
from zerosum.runs.messages import BAD_INPUT, INTERRUPTED, guarded, output, refuse, say

DIFFERS = 1


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    console = output()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            _help()
            return 0 if arguments else BAD_INPUT
        folder = expand(arguments[0])
        kind = results.kind_of(folder)
        return 0 if kind.export(folder, _options(kind, arguments[1:]), console) else DIFFERS
    except (ValueError, OSError, ImportError) as error:
        return refuse(error)
    except KeyboardInterrupt:
        say("interrupted; nothing was exported")
        return INTERRUPTED


def _help() -> None:
    print(__doc__.replace("``", ""))
    for kind in results.kinds():
        with suppress(SystemExit):
            _options(kind, ["--help"])


def _options(kind: results.Kind, arguments: Sequence[str]) -> Any:
    parse: Any = tyro.cli
    return parse(kind.ExportOptions, args=arguments, prog="python -m zerosum.export RUN_DIR")
