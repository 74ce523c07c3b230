"""A round, in which ranks are apart: random numbers, and shares of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zerosum.randomness import random_state, seed_all, set_random_state
from zerosum.ranks.group import count, index

_common: dict[str, Any] | None = None  # where the common random numbers stand, while ranks are apart


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
