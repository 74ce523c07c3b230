"""Runs: a recipe's options, its experiment played in a folder, and what is shown, kept and taken up again of it."""

from zerosum.runs.experiment import Experiment, Outcome, Stage
from zerosum.runs.options import Options

__all__ = ["Experiment", "Options", "Outcome", "Stage"]
