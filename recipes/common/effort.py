"""How much work a run is given where its user does not say."""

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zerosum import Game, Player, evaluate
from zerosum.players import Bits, InputSpace
from zerosum.players.probe import probe
from zerosum.randomness import kept_random_state

Effort = Literal["quick", "default", "thorough"]


class Plan(NamedTuple):
    """Rounds of the game; those in which the generator moves alone; images in the pool; steps of each block; the share
    of activations that stay in full precision while a block learns; of images, that which is procedural; and the step
    size of the quantized network in the game."""

    rounds: int
    warmup: int
    pool: int
    block_steps: int
    dropped: float
    leaves: float
    quantized_lr: float = 3e-4


class _Effort(NamedTuple):
    """The most and the least of a plan, and the multiply-accumulates that P may take for one image of each round, or of
    each step of a block, or for the pool, in between."""

    most: Plan
    least: Plan
    rounds: float
    block_steps: float
    pool: float


# Chosen on a ResNet of 41 million multiply-accumulates and an EfficientNet of 390 (docs/quantization.md).
_EFFORTS = {
    "quick": _Effort(Plan(500, 60, 512, 200, 0.5, 0.5), Plan(20, 5, 128, 60, 0.5, 0.5), 8e9, 6e9, 2e10),
    "default": _Effort(Plan(1000, 300, 1024, 600, 0.5, 0.5), Plan(40, 10, 256, 150, 0.5, 0.5), 4e10, 2.5e10, 4.5e10),
    "thorough": _Effort(Plan(8000, 800, 1024, 1500, 0.5, 0.5), Plan(80, 20, 512, 200, 0.5, 0.5), 3e11, 1e11, 2e11),
}
_FEW_BITS = 4  # of activations, at which dropping them helps
_TINY = 16  # pixels, in which leaves of many sizes have no room


def plan_of(effort: Effort, network: nn.Module, space: InputSpace, bits: Bits) -> Plan:
    """The work that an effort comes to for a network and its bits."""
    chosen, operations = _EFFORTS[effort], multiply_accumulates(network, space)

    def between(name: str) -> int:
        least, most = getattr(chosen.least, name), getattr(chosen.most, name)
        return int(max(least, min(most, getattr(chosen, name) / operations)))

    rounds, warmup = between("rounds"), chosen.most.warmup
    large = rounds < 2 * warmup  # so that the generator has too few rounds to become any good
    return Plan(
        rounds=rounds,
        warmup=rounds // 4 if large else warmup,
        pool=between("pool"),
        block_steps=between("block_steps"),
        dropped=chosen.most.dropped if bits.activation <= _FEW_BITS else 0.0,
        leaves=1.0 if large else 0.0 if min(space.size) < _TINY else chosen.most.leaves,
        quantized_lr=1e-4 if large else 3e-4,
    )


def multiply_accumulates(network: nn.Module, space: InputSpace) -> int:
    """Of convolutions and matrix products, for one image; the same on every device."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        probe(network, space)
    return max(1, counter.get_total_flops() // 2)


def seconds_of(game: Game[Any], movers: Sequence[Player]) -> float:
    """A round in which these players move, as it takes now, the second time; leaves no trace."""
    for _ in range(2):
        _wait()
        started = time.perf_counter()
        with game.keeping_buffers(), kept_random_state():
            evaluate(game, movers, game.sample())
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
