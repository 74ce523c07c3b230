"""Runs: a recipe's options, its experiment played in a folder, and what is shown, kept and taken up again of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerosum.runs.experiment import Experiment, Outcome, Stage
    from zerosum.runs.options import Options

__all__ = ["Experiment", "Options", "Outcome", "Stage"]


def __getattr__(name: str) -> Any:
    """Looked up when it is asked for, as in ``zerosum``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("zerosum.runs.options" if name == "Options" else "zerosum.runs.experiment"), name)
