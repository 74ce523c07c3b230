"""Several processes that play one game: ranks, as torchrun or SLURM starts them.

Every rank holds all players and plays the same rounds, with the same random numbers. Within a round of a match alone
they are :func:`apart`: each draws random numbers of its own, and its :func:`share` of a batch. What they come to is
brought together where it passes (:func:`zerosum.dynamics.evaluate`): gradients, losses and the payoff are means over
ranks, so that a round of N ranks is one of a batch N times as large. A term that is no mean over samples has to take
what belongs to the whole batch by :func:`mean`, :func:`moments` or :func:`least`; what is drawn once for a batch is
drawn :func:`alike`.

In one process alone, all of this leaves everything as it is.
"""

from zerosum.ranks.averages import gradient_means, least, mean, means, moments
from zerosum.ranks.group import (
    Lost,
    Told,
    agreed,
    any_of,
    count,
    exchange,
    from_first,
    gathered,
    index,
    joined,
    together,
)
from zerosum.ranks.rounds import alike, apart, are_apart, check_batch_size, part_of, share, share_of

__all__ = [
    "Lost",
    "Told",
    "agreed",
    "alike",
    "any_of",
    "apart",
    "are_apart",
    "check_batch_size",
    "count",
    "exchange",
    "from_first",
    "gathered",
    "gradient_means",
    "index",
    "joined",
    "least",
    "mean",
    "means",
    "moments",
    "part_of",
    "share",
    "share_of",
    "together",
]
