"""The C library's memory, for programs that ask for the same amounts over and over."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Keep what tensors free on the CPU for those of the next round, which ask for the same again.

    glibc gives large blocks back to the system at once, so that every tensor of every round is paid for in page faults
    (docs/performance.md has what they cost). For a program to call, at its start; does nothing with other C libraries.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_MMAP_THRESHOLD, 2**30)
