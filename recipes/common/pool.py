"""A pair in front of images that are kept."""

import torch
from torch import Tensor

from zerosum.recipes.common.augmentation import Crops
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.pixels import Pixels, noise
from zerosum.recipes.common.prior import Prior
from zerosum.recipes.common.published import ImagesFirst, LearningFromPool
from zerosum.recipes.common.scene import Scene
from zerosum.recipes.common.source import Source
from zerosum.recipes.common.synthesis import Synthesis


class PoolScene(Scene):
    """A pair in front of images that are kept, where Q alone moves. The plan has no warm-up, and Q is kept as it was
    last.

    Args:
        pixels: all images.
        source: shows them; default: ``pixels``, as they are.
    """

    def __init__(
        self, pair: Pair, pixels: Pixels, prior: Prior, config: DataFreeOptions, source: Source | None = None
    ) -> None:
        self.pixels = pixels
        super().__init__(pair, pixels if source is None else source, prior, config)
        self.held_out = None

    @torch.no_grad()
    def pool(self, most: int | None = None) -> Tensor:
        """All images, or so many at most, in random order."""
        return self.pixels.images(torch.randperm(len(self.pixels.values), device=self.pair.device)[:most])

    def _share_of(self, count: int) -> int:
        return 0  # nothing is made beside what is kept


def pool_scene(pair: Pair, prior: Prior, config: LearningFromPool) -> PoolScene:
    """Before its images are made: noise."""
    pixels = Pixels(noise(config.plan(pair.teacher, pair.space).pool, pair), config.batch_size)
    return PoolScene(pair, pixels, prior, config, Crops(pixels, config.crop) if config.crop < 1 else pixels)


class AnsweringScene(PoolScene):
    """The same, in which Q answers, all its blocks once in each round of the plan, and takes no other step."""

    @property
    def answers(self) -> tuple[range, ...]:
        return (range(self.plan.rounds * len(super().answers[0])),)

    @property
    def rounds(self) -> int:
        return len(self.answering)


def synthesis_of(scene: PoolScene, config: ImagesFirst) -> Synthesis:
    """For a scene's pool."""
    rounds, size = config.synthesis_rounds, config.batch_size
    return Synthesis(scene.pair, scene.prior, rounds, size, scene.arithmetic, config.conditioning)
