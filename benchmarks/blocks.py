"""What a step of block reconstruction costs, and where the time goes: ``python -m benchmarks.blocks``.

A few steps of every block of a network on noise, batch 16, under PyTorch's profiler; convolutions and matrix products
are what no arrangement of the rest could save.
"""

import time
from collections import Counter
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from zerosum import Game, Player
from zerosum.memory import keep_freed_memory
from zerosum.players import calibrate
from zerosum.randomness import seed_all
from zerosum.recipes import adasg
from zerosum.recipes.common.arithmetic import computing_in
from zerosum.recipes.common.pair import pair_of
from zerosum.recipes.common.reconstruction import Reconstruction

_KINDS = {
    "convolutions and matrix products": ("conv", "addmm", "mm", "bmm", "linear", "attention"),
    "normalization": ("norm",),
    "rounding and activation functions": (
        "round",
        "clamp",
        "hardtanh",
        "threshold",
        "relu",
        "quantize",
        "silu",
        "gelu",
    ),
    "copies": ("copy", "clone", "index", "cat", "pad", "fill"),
}


@dataclass(frozen=True)
class Options:
    """Print what a step of every block costs, in order, and the shares of what it is spent on."""

    backbones: tuple[str, ...] = ("cifar_resnet20", "tf_efficientnet_lite0")
    """Networks, by timm's names, with random weights."""
    bits: str = "w4a8"
    """Bits of weights and activations."""
    precision: str = "fp32"
    """What blocks compute in: fp32 or bf16."""
    steps: int = 20
    """Steps of each block. As many for each image of the pool as a default run of EfficientNet-Lite0 has."""
    pool: int = 32
    """Images."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""


def measure(name: str, options: Options) -> tuple[float, Counter[str]]:
    """Milliseconds of a step of all blocks, and percent by what they are spent on."""
    seed_all(0)
    config = adasg.Config(backbone=name, weights="random", bits=options.bits, device=options.device)
    pair = pair_of(config)
    images = torch.randn(options.pool, pair.space.channels, *pair.space.size, device=pair.device)
    images = images.contiguous(memory_format=torch.channels_last)
    calibrate(pair.student, [images[:16]])
    dropped = config.plan(pair.teacher, pair.space).dropped
    answers = Reconstruction(
        pair,
        lambda: images,
        options.steps,
        16,
        dropped,
        lambda: computing_in(options.precision, pair.device),
    )
    sgd = torch.optim.SGD(pair.student.parameters(), 0.0)
    player = Player("quantized network", pair.student, sgd, "minimize", surrogate=lambda play: play.sum())
    game = Game((player,), lambda _: next(pair.student.parameters()))
    for _ in answers.blocks:  # kernels are chosen
        answers(game, player)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if pair.device.type == "cuda" else [])]
    started = time.perf_counter()
    for _ in answers.blocks:
        answers(game, player)
    seconds = time.perf_counter() - started
    with profile(activities=activities) as profiled:
        for _ in answers.blocks:
            answers(game, player)
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        key = event.key.lower()
        kind = next((kind for kind, words in _KINDS.items() if any(word in key for word in words)), "all else")
        spent[kind] += event.self_device_time_total if pair.device.type == "cuda" else event.self_cpu_time_total
    total = spent.total()
    return 1e3 * seconds / options.steps, Counter({kind: 100 * part / total for kind, part in spent.items()})


def main(options: Options) -> None:
    """Print the table."""
    keep_freed_memory()
    console = Console(soft_wrap=True)
    kinds = [*_KINDS, "all else"]
    console.print(f"| network | precision | ms a step of all blocks | {' | '.join(f'{kind}, %' for kind in kinds)} |")
    console.print(f"|{'---|' * (3 + len(kinds))}")
    for name in options.backbones:
        milliseconds, spent = measure(name, options)
        cells = [name, options.precision, f"{milliseconds:.0f}", *(f"{spent[kind]:.0f}" for kind in kinds)]
        console.print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
