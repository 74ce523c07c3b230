"""Those who watch a match: console, journal, checkpoints; and the picture drawn from the journal."""

from zerosum.watchers.checkpoints import Checkpoints
from zerosum.watchers.console import ConsoleWatcher
from zerosum.watchers.figures import draw_game
from zerosum.watchers.journal import Journal

__all__ = ["Checkpoints", "ConsoleWatcher", "Journal", "draw_game"]
