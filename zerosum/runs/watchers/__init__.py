"""Those who watch a match: console, journal, checkpoints, pictures, TensorBoard."""

from zerosum.runs.watchers.checkpoints import Checkpoints
from zerosum.runs.watchers.console import ConsoleWatcher
from zerosum.runs.watchers.journal import Journal
from zerosum.runs.watchers.pictures import Pictures
from zerosum.runs.watchers.tensorboard import TensorBoard

__all__ = ["Checkpoints", "ConsoleWatcher", "Journal", "Pictures", "TensorBoard"]
