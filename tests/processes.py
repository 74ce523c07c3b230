"""Runs in processes of their own, to be signalled and killed; forked from one that has imported everything."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["zerosum.recipes.adasg", "zerosum.recipes.gan_ring", "zerosum.runs.run"])


def _run(arguments, log, killed_at):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if killed_at is not None:
        _kill_within_a_write(*killed_at)
    from zerosum.runs.run import main

    sys.exit(main(arguments))


def _kill_within_a_write(when, calls):
    """SIGKILL in some call of os.fsync (what was written has no name yet) or os.replace (or has it)."""
    left = calls
    call = getattr(os, when.removeprefix("after "))

    def counted(*args):
        nonlocal left
        left -= 1
        if left == 0 and when.startswith("after"):
            call(*args)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)

    setattr(os, when.removeprefix("after "), counted)


def start(log, *arguments, killed_at=None):
    """A process of ``python -m zerosum.run``; ``killed_at`` kills it within the n-th write: ("fsync", n), or "replace",
    or "after replace"."""
    process = context.Process(target=_run, args=([str(a) for a in arguments], str(log), killed_at))
    process.start()
    return process


def finish(process, log, seconds=120):
    """Its exit code (minus the signal, where one killed it), and what it printed."""
    process.join(seconds)
    assert process.exitcode is not None, "still running"
    return process.exitcode, Path(log).read_text()


def lines(folder):
    """The journal of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_for_rounds(process, folder, rounds):
    deadline = time.monotonic() + 120
    journal = folder / "metrics.jsonl"
    while not journal.exists() or len(journal.read_bytes().splitlines()) < rounds:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
