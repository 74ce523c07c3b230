"""Games played by several ranks, each a process; forked from one that has imported everything."""

import os
import socket
import sys
import time
from pathlib import Path

import torch

from tests.processes import context
from zerosum import ranks


def _play(rank, count, port, function, arguments, out):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with ranks.joined():
        found = function(*arguments)
        torch.save(found, f"{out}.part")
        os.replace(f"{out}.part", out)


def started(function, arguments, folder: Path, count=2):
    """Processes of ranks, in each of which ``function`` plays."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank in range(count):
        given = (rank, count, port, function, arguments, str(folder / f"rank{rank}.pt"))
        found.append(context.Process(target=_play, args=given, daemon=True))
        found[-1].start()
    return found


def ended(processes, deadline=90.0):
    """Their exit codes; those that play on behind the deadline are killed, and the test fails."""
    until = time.monotonic() + deadline
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    assert not late, f"{len(late)} ranks play on after {deadline} s"
    return [process.exitcode for process in processes]


def played(function, *arguments, folder: Path, count=2, deadline=90.0):
    """What ``function`` gives on each of so many ranks."""
    assert ended(started(function, arguments, folder, count), deadline) == [0] * count
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(count)]


def run(log, *arguments):
    """``python -m zerosum.run`` on one of the ranks; what it prints goes to ``log`` and its rank."""
    from zerosum.runs.run import main

    descriptor = os.open(f"{log}{ranks.index()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(main([str(argument) for argument in arguments]))
