"""How much work a run is given where its user does not say."""

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zerosum import Game, Player, evaluate
from zerosum.players import Bits, InputSpace
from zerosum.players.probe import probe
from zerosum.randomness import kept_random_state

Effort = Literal["quick", "default", "thorough"]


class Plan(NamedTuple):
    """Rounds of the game; those in which the generator moves alone; images in the pool; steps of each block; the share
    of activations that stay in full precision while a block learns; and of images, that which is procedural."""

    rounds: int
    warmup: int
    pool: int
    block_steps: int
    dropped: float
    leaves: float


# Multiply-accumulates that the full-precision network may take for one image of each round; the most of everything.
_EFFORTS = {
    "quick": (3e10, Plan(500, 100, 128, 60, 0.5, 0.5)),
    "default": (1.2e11, Plan(2000, 300, 256, 150, 0.5, 0.5)),
    "thorough": (6e11, Plan(8000, 1000, 1024, 500, 0.5, 0.5)),
}
_FEW_BITS = 4  # of activations, at which dropping them helps


def plan_of(effort: Effort, network: nn.Module, space: InputSpace, bits: Bits) -> Plan:
    """The work that an effort comes to for a network and its bits."""
    available, most = _EFFORTS[effort]
    rounds = max(1, min(most.rounds, int(available / multiply_accumulates(network, space))))
    dropped = most.dropped if bits.activation <= _FEW_BITS else 0.0
    leaves = most.leaves if most.warmup <= rounds // 2 else 1.0
    return most._replace(rounds=rounds, warmup=min(most.warmup, rounds // 2), dropped=dropped, leaves=leaves)


def multiply_accumulates(network: nn.Module, space: InputSpace) -> int:
    """Of convolutions and matrix products, for one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        probe(network, space)
    return max(1, counter.get_total_flops() // 2)


def seconds_of(game: Game[Any], movers: Sequence[Player]) -> float:
    """A round in which these players move, as it takes now, the second time; leaves no trace."""
    for _ in range(2):
        started = time.perf_counter()
        with game.keeping_buffers(), kept_random_state():
            evaluate(game, movers, game.sample())
    return time.perf_counter() - started
