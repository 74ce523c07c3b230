"""Images themselves as the player (as in ZeroQ, Cai et al., CVPR 2020), in a pool from which the pair is shown some."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam

from zerosum import Game, Player
from zerosum.objectives import adaptability, calibration_loss
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, Scene, pair_of, prior_of


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """A game between a pool of 64 images and the quantized copy."""


class Pool(nn.Module):
    """A source of images that is the player itself."""

    module = property(lambda self: self)

    def __init__(self, pair, batch_size, images=64):
        super().__init__()
        self.pixels = nn.Parameter(torch.randn(images, pair.space.channels, *pair.space.size, device=pair.device))
        self.classes = torch.arange(images, device=pair.device) % pair.classes
        self.sample = lambda: torch.randint(images, (batch_size,), device=pair.device)
        self.images, self.labels = lambda drawn: self.pixels[drawn], lambda drawn: self.classes[drawn]
        self.shown = lambda count, seed: torch.arange(count, device=pair.device) % images


def images_of(config):
    """The scene, and its player of images."""
    pair = pair_of(config)
    scene = Scene(pair, pool := Pool(pair, config.batch_size), prior_of(pair.teacher), config)
    terms = {"class": lambda play: 0.1 * F.cross_entropy(play.p, play.labels), **scene.natural(1.0)}
    return scene, Player("images", pool, Adam(pool.parameters(), 0.1), "maximize", terms=terms)


def recipe(config):
    scene, images = images_of(config)
    quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q))
    game = Game((images, quantized), scene.play, lambda play: adaptability(play.p, play.q).mean(), scene.source.sample)
    return Keeping(scene).experiment(game)
