"""How much work a run is given where its user does not say."""

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zerosum import Dynamics, Game, Graphed, Player, Round, evaluate
from zerosum.players import Bits, InputSpace
from zerosum.players.probe import probe
from zerosum.randomness import kept_random_state

Effort = Literal["quick", "default", "thorough"]


class Plan(NamedTuple):
    """Rounds of the game; those in which the generator moves alone; images in the pool; steps of each block; the share
    of activations that stay in full precision while a block learns; of images, that which is procedural; the step size
    of the quantized network in the game; how often blocks answer again in it; and how often the data, where there are
    some, are measured on."""

    rounds: int
    warmup: int
    pool: int
    block_steps: int
    dropped: float
    leaves: float
    quantized_lr: float
    renewals: int
    measurements: int


class _Amount(NamedTuple):
    """The least and the most of something; in between, by the multiply-accumulates that it may cost P for one image."""

    least: int
    most: int
    operations: float

    def of(self, operations: int) -> int:
        """For a network of so many."""
        return int(max(self.least, min(self.most, self.operations / operations)))


class _Effort(NamedTuple):
    """What a plan has of each, of rounds the least where a network is large; and the most of warm-up, of one that is
    not."""

    rounds: _Amount
    pool: _Amount
    block_steps: _Amount
    warmup: int
    measurements: int


# Chosen on a ResNet of 41 million multiply-accumulates and an EfficientNet of 390 (docs/quantization.md).
_EFFORTS = {
    "quick": _Effort(_Amount(20, 500, 8e9), _Amount(128, 512, 2e10), _Amount(60, 200, 6e9), 60, 2),
    "default": _Effort(_Amount(40, 1000, 4e10), _Amount(256, 1024, 4.5e10), _Amount(150, 600, 2.5e10), 300, 8),
    "thorough": _Effort(_Amount(80, 8000, 3e11), _Amount(512, 1024, 2e11), _Amount(200, 1500, 1e11), 800, 16),
}
_DROPPED = _LEAVES = 0.5
_FEW_BITS = 4  # of activations, at which dropping them helps
_LONG = 2.0  # seconds of a round, of which what is new the first time is a small part
_TINY = 16  # pixels, in which leaves of many sizes have no room


def plan_of(effort: Effort, network: nn.Module, space: InputSpace, bits: Bits) -> Plan:
    """The work that an effort comes to for a network and its bits."""
    chosen, operations = _EFFORTS[effort], multiply_accumulates(network, space)
    rounds = chosen.rounds.of(operations)
    large = rounds < chosen.warmup  # so that the generator has too few rounds to become any good
    if large:  # where Q, with its blocks reconstructed, has little to learn from it
        rounds = chosen.rounds.least
    return Plan(
        rounds=rounds,
        warmup=rounds // 4 if large else min(chosen.warmup, rounds // 3),
        pool=chosen.pool.of(operations),
        block_steps=chosen.block_steps.of(operations),
        dropped=_DROPPED if bits.activation <= _FEW_BITS else 0.0,
        leaves=1.0 if large else 0.0 if min(space.size) < _TINY else _LEAVES,
        quantized_lr=1e-4 if large else 3e-4,
        renewals=0 if large or effort == "quick" else 1,
        measurements=chosen.measurements // 2 if large else chosen.measurements,  # each takes as long as many rounds
    )


def multiply_accumulates(network: nn.Module, space: InputSpace) -> int:
    """Of convolutions and matrix products, for one image; the same on every device."""
    from torch.utils.flop_counter import FlopCounterMode  # takes its time, for it looks for Triton

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        probe(network, space)
    return max(1, counter.get_total_flops() // 2)


class _Looking(Dynamics):
    """Nobody moves, but for that all is computed."""

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        return evaluate(game, movers, game.sample()).round


def seconds_of(game: Game[Any], movers: Sequence[Player]) -> float:
    """A round in which these players move, as it takes now, when it is no longer new, unless it is long; leaves no
    trace."""
    rule = Graphed(_Looking())
    with game.keeping_buffers(), kept_random_state():
        on_cuda = torch.cuda.is_available()  # where kernels are chosen first, and then a graph is recorded
        for _ in range(4 if on_cuda else 2):
            wait_for_device()
            started = time.perf_counter()
            rule.step(game, movers)
            wait_for_device()
            seconds = time.perf_counter() - started
            if seconds > _LONG and not on_cuda:
                break
    return seconds


def wait_for_device() -> None:
    """Until CUDA, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
