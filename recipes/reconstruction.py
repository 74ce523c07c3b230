"""Block reconstruction on images that are made first: data-free quantization without a game.

Images come from somewhere, once; then each block of the quantized copy Q is brought close to what the same block of the
full-precision network P gives on them, from the input to the output (BRECQ, ICLR 2021; QDrop, ICLR 2022). Such methods
differ before all in where their images come from. Here: leaves that nobody had to take, noise, or what makes P's
BatchNorm layers see what they remember, be it pixels (ZeroQ, CVPR 2020), latents with a generator of their own
(Genie-D, CVPR 2023) or what one generator makes of any latents (GDFQ, ECCV 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import SGD

from zerosum import Game, Match, Player, Responding
from zerosum.objectives import calibration_loss
from zerosum.players import InputSpace
from zerosum.players.leaves import dead_leaves
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, Pair, Play, Subject, pair_of
from zerosum.recipes.common.effort import Plan
from zerosum.recipes.common.pool import Pixels, PoolScene, filling, noise
from zerosum.recipes.common.synthesis import Synthesis, Way, synthesis_prior
from zerosum.runs import Experiment, Stage


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """Quantize a trained network to a few bits with no data and no game: make images, then reconstruct its blocks."""

    images: Literal["leaves", "noise", "generator", "pixels", "latents"] = "leaves"
    """Where images come from: procedural ones (dead leaves) and noise are there at once; a generator, pixels themselves
    (ZeroQ), or latents with a generator of their own (Genie-D) are first optimized."""
    synthesis_rounds: int = 500
    """Rounds in which images are optimized, those that are made at a time. Published: 500 for pixels, 4,000 for
    latents."""
    synthesis_images: int = 128
    """Pixels or latents that are optimized at a time, each time from a fresh start. Published: 64 and 128."""
    rounds: int | None = 1
    """How often all blocks are reconstructed, each time on from where they are; 0 leaves the network rounded, with
    ranges that were observed on the images."""

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "synthesis_rounds", "synthesis_images")
        for name in ("warmup", "renewals", "leaves", "quantized_lr"):
            if (value := getattr(self, name)) is not None and (value or name == "leaves"):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} {value}: there is no game here; --images says where images come from")

    def plan(self, network: nn.Module, space: InputSpace) -> Plan:
        return super().plan(network, space)._replace(warmup=0, renewals=0)


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Images, where some are to be optimized, and a quantized copy of ``config.backbone``, or of a network that is
    handed in."""
    pair = pair_of(config, subject)
    count = config.plan(pair.teacher, pair.space).pool
    found = dead_leaves(count, pair.space) if config.images == "leaves" else noise(count, pair)
    return experiment_on(found, pair, config)


def experiment_on(images: torch.Tensor, pair: Pair, config: Config) -> Experiment:
    """The same on these images, (N, channels, height, width) in normalised input space, or from them on."""
    images = images.to(pair.device, memory_format=torch.channels_last)
    scene = PoolScene(pair, Pixels(images, config.batch_size), synthesis_prior(pair.teacher), config)
    scene.source.put(0, images, pair.teacher)
    keeping = Keeping(scene)
    way = Synthesis(pair, scene.prior, config.synthesis_rounds, config.batch_size).ways.get(config.images)

    def reconstruction(played: Mapping[str, Match]) -> Stage:
        quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q))  # it answers, and never steps
        game: Game[Play] = Game((quantized,), scene.play, sample=scene.source.sample)
        return keeping.stage(game, scene.rounds)

    first = {"images": lambda played: _synthesis(scene, keeping, way, config)} if way is not None else {}
    return Experiment(first | {"reconstruction": reconstruction}, keeping.finish)


def _synthesis(scene: PoolScene, keeping: Keeping, way: Way, config: Config) -> Stage:
    """In each round so many of the images are made and put into their places; by a generator, all in one."""
    pool, count = scene.source, len(scene.source.values)
    at_once = count if config.images == "generator" else min(config.synthesis_images, count)
    player = Player("images", pool, SGD([pool.values], 0.0), "maximize", terms=scene.natural(1.0))
    filled = Responding(filling(pool, way, at_once, scene.pair.teacher), "maximize")
    return keeping.stage(Game((player,), scene.play, sample=pool.sample), -(-count // at_once), filled)
