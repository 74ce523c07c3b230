"""Those that were started together, and what they say to each other."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from zerosum.ranks.launchers import place_of

T = TypeVar("T")
_PATIENCE = timedelta(hours=1)  # with a rank that does something alone
_joined = False  # a script's own process group makes no ranks


class Told(ValueError):
    """An error of another rank, of which all know; the first says it."""


class Lost(RuntimeError):
    """Another rank is gone, or does something else, so that there is no answer from it."""


@contextmanager
def joined() -> Iterator[None]:
    """Within, this process is one of the ranks that were started together, or of those of a process group that is there
    already; alone, where it was started alone.

    Raises:
        ValueError: as :func:`zerosum.ranks.launchers.place_of`.
    """
    global _joined
    place, outer = place_of(os.environ), _joined
    there = dist.is_available() and dist.is_initialized()
    if place.ranks == 1 or there:
        _joined = there
        try:
            yield
        finally:
            _joined = outer
        return
    from torch.distributed.rendezvous import rendezvous  # not there where PyTorch was built without

    if torch.cuda.is_available():
        torch.cuda.set_device(place.local % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, ranks = next(rendezvous("env://", place.rank, place.ranks, timeout=_PATIENCE))
    # torchrun keeps its store over restarts, with the addresses of ranks that are gone.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=_PATIENCE)
    _joined = True
    try:
        yield
    finally:
        _joined = False
        dist.destroy_process_group()


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if _joined else 1


def index() -> int:
    """Which of them this is, from 0. The first alone writes, prints and holds the folder."""
    return dist.get_rank() if count() > 1 else 0


@contextmanager
def exchange() -> Iterator[None]:
    """Around what all ranks do together.

    Raises:
        Lost: not all of them do.
    """
    try:
        yield
    except RuntimeError as error:
        raise Lost("another rank is gone, or does something else") from error


def any_of(said: bool) -> bool:
    """Whether a rank says so; all have to ask."""
    if count() == 1:
        return said
    flag = torch.tensor(int(said))
    with exchange():
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def gathered(value: T) -> list[T]:
    """What each rank has, on all of them, in their order; tensors are on the CPU.

    Raises:
        Told: another comes to :func:`together` instead, where it failed.
    """
    if count() == 1:
        return [value]
    return [found for found, _ in _gathered((value, None))]


def together(make: Callable[[], T]) -> T:
    """What each rank makes for itself, and :func:`gathered` in it; where one fails, all do.

    Raises:
        Told: another failed.
    """
    if count() == 1:
        return make()
    try:
        made = make()
    except Told:  # that is known to all
        raise
    except Exception as error:
        _gathered((None, _words(error)), error)
        raise
    _gathered((None, None))
    return made


def _gathered(own: tuple[Any, str | None], failed: Exception | None = None) -> list[tuple[Any, str | None]]:
    """Of each rank, what it has, or how it failed."""
    found: list[Any] = [None] * count()
    with exchange():
        dist.all_gather_object(found, own)
    for rank, (_, words) in enumerate(found):
        if words is not None:
            if failed is not None and rank == index() == 0:
                raise failed
            raise Told(words if rank == 0 else f"rank {rank}: {words}") from failed
    return found


def agreed(value: T) -> T:
    """The first rank's, on all of them: of what they found alike but for rounding, and decide by."""
    return from_first(lambda: value)


def from_first(make: Callable[[], T]) -> T:
    """What the first rank makes, on all of them, tensors on the CPU.

    Raises:
        Told: the first rank failed, which raises its error itself.
    """
    if count() == 1:
        return make()
    made: tuple[T | None, str | None] = (None, None)
    content: list[bytes | None] = [None]
    failed = None
    if index() == 0:
        try:
            made = make(), None
        except Exception as error:
            failed, made = error, (None, _words(error))
        torch.save(made, buffer := io.BytesIO())
        content = [buffer.getvalue()]
    with exchange():
        dist.broadcast_object_list(content, src=0, device=torch.device("cpu"))
    if index() > 0:
        assert content[0] is not None
        made = torch.load(io.BytesIO(content[0]), map_location="cpu", weights_only=False)  # written by the first rank
    value, words = made
    if words is not None:
        raise failed or Told(words)
    return value  # type: ignore[return-value]  # which may be None itself


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
