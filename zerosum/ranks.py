"""Several processes that play one game: ranks, as torchrun or SLURM starts them.

Every rank holds all players and plays the same rounds, with the same random numbers. Within a round of a match alone
they are :func:`apart`: each draws random numbers of its own, and its :func:`share` of a batch. What they come to is
brought together where it passes (:func:`zerosum.dynamics.evaluate`): gradients, losses and the payoff are means over
ranks, so that a round of N ranks is one of a batch N times as large. A term that is no mean over samples has to take
what belongs to the whole batch by :func:`mean`, :func:`moments` or :func:`least`.

In one process alone, all of this leaves everything as it is.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from zerosum.launchers import place_of
from zerosum.randomness import random_state, seed_all, set_random_state

T = TypeVar("T")
_PATIENCE = timedelta(hours=1)  # with a rank that does something alone
_joined = False  # a script's own process group makes no ranks
_common: dict[str, Any] | None = None  # where the common random numbers stand, while ranks are apart


@contextmanager
def joined() -> Iterator[None]:
    """Within, this process is one of the ranks that were started together, or of those of a process group that is there
    already; alone, where it was started alone.

    Raises:
        ValueError: as :func:`zerosum.launchers.place_of`.
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
def apart() -> Iterator[None]:
    """Within, random numbers are this rank's own; behind it, the common ones go on, all ranks alike."""
    global _common
    if count() == 1:
        yield
        return
    seed = int(torch.randint(2**62, ()))
    outer, _common = _common, random_state()
    seed_all(seed ^ index())
    try:
        yield
    finally:
        set_random_state(_common)
        _common = outer


@contextmanager
def alike() -> Iterator[None]:
    """Within, all ranks are alike again, where they were apart: a match inside a round of another, say."""
    global _common
    if _common is None:
        yield
        return
    own, common = random_state(), _common
    set_random_state(common)
    _common = None
    try:
        yield
    finally:
        _common = random_state()
        set_random_state(own)


def are_apart() -> bool:
    """Whether this is within a round, in which each rank has its own share."""
    return _common is not None


def share(batch_size: int) -> int:
    """How many samples of a batch this rank draws: while they are apart, its :func:`share_of` it, else all."""
    return share_of(batch_size) if are_apart() else batch_size


def part_of(samples: Tensor) -> Tensor:
    """This rank's part of samples that all of them have, (N, ...), while they are apart; else, or where there are fewer
    than ranks, all."""
    if not are_apart() or len(samples) < count():
        return samples
    begin, end = (len(samples) * place // count() for place in (index(), index() + 1))
    return samples[begin:end]


def share_of(batch_size: int) -> int:
    """An equal part, rounded up."""
    return -(-batch_size // count())


def check_batch_size(batch_size: int) -> None:
    """That a batch can be divided among the ranks.

    Raises:
        ValueError: it cannot.
    """
    if batch_size % count():
        raise ValueError(f"a batch of {batch_size} for {count()} ranks: expected a multiple of {count()}")


def mean(x: Tensor) -> Tensor:
    """Over the ranks, while they are apart; it can be differentiated, any number of times."""
    if _common is None:
        return x
    found: Tensor = _Mean.apply(x)
    return found


class _Mean(torch.autograd.Function):
    """It is its own transpose: what comes back to a rank is the mean of what came back to all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / count()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found: Tensor = _Mean.apply(gradient)
        return found


def means(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Each one's :func:`mean`, of all in one exchange; None stays."""
    found: list[Tensor | None] = list(tensors)
    if _common is None:
        return found
    for dtype in dict.fromkeys(x.dtype for x in tensors if x is not None):  # in one order on all ranks
        places = [i for i, x in enumerate(tensors) if x is not None and x.dtype == dtype]
        parts: list[Tensor] = [x for x in tensors if x is not None and x.dtype == dtype]
        together = mean(torch.cat([x.reshape(-1) for x in parts]))
        for place, part, x in zip(places, torch.split(together, [x.numel() for x in parts]), parts, strict=True):
            found[place] = part.view(x.shape)
    return found


def moments(here: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Means and biased variances of all ranks' batches, of those of this rank's, of any number of layers in one
    exchange; differentiable."""
    if _common is None:
        return list(here)
    wide = [(mean.double(), variance.double()) for mean, variance in here]  # for small variances of large means
    found = means([x for mean, variance in wide for x in (mean, variance + mean.square())])
    whole: list[Tensor] = [x for x in found if x is not None]
    pairs = zip(whole[::2], whole[1::2], strict=True)
    return [(m.to(own), (square - m.square()).to(own)) for (m, square), (own, _) in zip(pairs, here, strict=True)]


def least(values: Tensor) -> Tensor:
    """The least of (N,) values of all ranks; differentiable."""
    here = values.min()
    if _common is None:
        return here
    lowest = here.detach().clone()
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    mine = here.detach() == lowest
    there, holders = mean(torch.stack([torch.where(mine, here, 0), mine.to(here)]))
    return there / holders


def any_of(said: bool) -> bool:
    """Whether a rank says so; all have to ask."""
    if count() == 1:
        return said
    flag = torch.tensor(int(said))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def gathered(value: T) -> list[T]:
    """What each rank has, on all of them, in their order; tensors are on the CPU."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def agreed(value: T) -> T:
    """The first rank's, on all of them: of what they found alike but for rounding, and decide by."""
    return from_first(lambda: value)


def from_first(make: Callable[[], T]) -> T:
    """What the first rank makes, on all of them, tensors on the CPU; an error that it raises is raised by all."""
    if count() == 1:
        return make()
    made: tuple[T | None, Exception | None] = (None, None)
    content: list[bytes | None] = [None]
    if index() == 0:
        try:
            made = make(), None
        except Exception as failed:
            made = None, failed
        torch.save(made, buffer := io.BytesIO())
        content = [buffer.getvalue()]
    dist.broadcast_object_list(content, src=0, device=torch.device("cpu"))
    if index() > 0:
        assert content[0] is not None
        made = torch.load(io.BytesIO(content[0]), map_location="cpu", weights_only=False)  # written by the first rank
    value, error = made
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # which may be None itself
