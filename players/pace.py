"""How long a pass over images will take, and what it spends that on."""

import time

from zerosum.players.progress import note

_WATCHED = 2.0  # seconds, and two batches, for the first is slower
_LONG = 20.0  # seconds of a pass that are worth a word


class Pace:
    """Is told when a batch has been read, and when the network has seen it; says once how long all of a long pass
    takes, and where more workers would shorten it.

    Args:
        batches: how many there are; None where that is not known, and nothing is said.
    """

    def __init__(self, batches: int | None) -> None:
        self._batches = batches
        self._began = self._last = time.perf_counter()
        self._done, self._reading = 0, 0.0
        self._said = batches is None

    def read(self) -> None:
        """A batch is there."""
        self._reading += time.perf_counter() - self._last

    def seen(self) -> None:
        """And the network has gone through it."""
        self._done, self._last = self._done + 1, time.perf_counter()
        passed = self._last - self._began
        if self._said or self._batches is None or self._done < 2 or passed < _WATCHED:
            return
        self._said = True
        seconds, share = passed / self._done * self._batches, self._reading / passed
        if seconds < _LONG:
            return
        advice = "" if share < 0.5 else "; more workers (--workers) would read beside the network"
        note(f"measuring takes some {seconds:.0f} s each time, {share:.0%} of it reading pictures{advice}")
