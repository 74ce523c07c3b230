"""Those who watch a match: console, journal, checkpoints, pictures, TensorBoard."""

from zerosum.watchers.checkpoints import Checkpoints
from zerosum.watchers.console import ConsoleWatcher
from zerosum.watchers.journal import Journal
from zerosum.watchers.pictures import Pictures
from zerosum.watchers.tensorboard import TensorBoard

__all__ = ["Checkpoints", "ConsoleWatcher", "Journal", "Pictures", "TensorBoard"]
