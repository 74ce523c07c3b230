"""Block reconstruction on images that are made first: data-free quantization without a game.

Images come from somewhere, once; then each block of the quantized copy Q is brought close to what the same block of the
full-precision network P gives on them, from the input to the output (BRECQ, ICLR 2021; QDrop, ICLR 2022). Such methods
differ before all in where their images come from. Here: leaves that nobody had to take, noise, or what makes P's
BatchNorm layers see what they remember, be it pixels (ZeroQ, CVPR 2020), latents with a generator of their own
(Genie-D, CVPR 2023) or what one generator makes of any latents (GDFQ, ECCV 2020).
"""

from dataclasses import dataclass
from typing import Literal

import torch

from zerosum import Game
from zerosum.objectives import calibration_loss
from zerosum.players.leaves import dead_leaves
from zerosum.recipes.common.data_free import AnsweringOnImages, Pair, Play, Subject, pair_of
from zerosum.recipes.common.images_first import images_first
from zerosum.recipes.common.pixels import Pixels, answered, noise
from zerosum.recipes.common.pool import AnsweringScene, synthesis_of
from zerosum.recipes.common.synthesis import synthesis_prior
from zerosum.runs import Experiment

Images = Literal["leaves", "noise", "generator", "pixels", "latents"]


@dataclass(frozen=True, kw_only=True)
class Config(AnsweringOnImages):
    """Quantize a trained network to a few bits with no data and no game: make images, then reconstruct its blocks."""

    images: Images = "leaves"
    """Where images come from: procedural ones (dead leaves) and noise are there at once; a generator, pixels themselves
    (ZeroQ), or latents with a generator of their own (Genie-D) are first optimized."""
    rounds: int | None = 1
    """How often all blocks are reconstructed, each time on from where they are; 0 leaves the network rounded, with
    ranges that were observed on the images."""


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Images, where some are to be optimized, and a quantized copy of ``config.backbone``, or of a network that is
    handed in."""
    pair = pair_of(config, subject)
    count = config.plan(pair.teacher, pair.space).pool
    found = dead_leaves(count, pair.space) if config.images == "leaves" else noise(count, pair)
    return experiment_on(found, pair, config)


def experiment_on(images: torch.Tensor, pair: Pair, config: Config) -> Experiment:
    """The same on these images, (N, channels, height, width) in normalised input space, or from them on."""
    pixels = Pixels(images.to(pair.device, memory_format=torch.channels_last), config.batch_size)
    scene = AnsweringScene(pair, pixels, synthesis_prior(pair.teacher), config)
    at_once = None if config.images == "generator" else config.synthesis_images
    way = synthesis_of(scene, config).ways.get(config.images)
    if way is None:
        pixels.put(0, answered(pixels.values.detach(), pair, config.batch_size))
    return images_first(scene, "reconstruction", lambda: answering(scene), way, at_once)


def answering(scene: AnsweringScene) -> Game[Play]:
    """Q's alone, in which it answers, and never steps."""
    quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q))
    return Game((quantized,), scene.play, sample=scene.source.sample)
