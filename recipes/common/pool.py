"""Images that are made first and then kept, and a pair in front of them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zerosum.players.spaces import image_moments
from zerosum.ranks import alike, part_of
from zerosum.recipes.common.augmentation import Crops
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.prior import Prior
from zerosum.recipes.common.published import LearningFromPool
from zerosum.recipes.common.scene import Scene
from zerosum.recipes.common.source import Source


class Labelled(NamedTuple):
    """Images (N, channels, height, width) in normalised input space, and their classes, (N,) int64."""

    images: Tensor
    labels: Tensor


class Pixels(nn.Module):
    """The images themselves, (N, channels, height, width), as a source: its parameters, shown some at a time.

    Attributes:
        classes: (N,) int64, of each; 0 as long as nobody has said.
        there: (N,) bool, whether it has been put into its place.
    """

    classes: Tensor
    there: Tensor

    def __init__(self, values: Tensor, batch_size: int) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.register_buffer("classes", torch.zeros(len(values), dtype=torch.int64, device=values.device))
        self.register_buffer("there", torch.zeros_like(self.classes, dtype=torch.bool))
        self.batch_size = batch_size

    @property
    def module(self) -> nn.Module:
        return self

    @torch.no_grad()
    def put(self, place: int, made: Labelled) -> None:
        """These in place of those from an index on."""
        chosen = slice(place, place + len(made.images))
        self.values[chosen], self.classes[chosen], self.there[chosen] = *made, True

    def sample(self) -> Tensor:
        """Indices of a batch, none twice; of all images, where there are no more."""
        with alike():  # so that they are none twice on all ranks together
            chosen = torch.randperm(len(self.values), device=self.values.device)[: self.batch_size]
        return part_of(chosen)

    def images(self, drawn: Tensor) -> Tensor:
        return self.values[drawn]

    def labels(self, drawn: Tensor) -> Tensor:
        return self.classes[drawn]

    def shown(self, count: int, seed: int) -> Tensor:
        return torch.arange(count, device=self.values.device) % len(self.values)


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


def noise(count: int, pair: Pair) -> Tensor:
    """(count, channels, height, width) of Gaussian noise with the moments of photographs, in normalised input space."""
    images = torch.randn(count, pair.space.channels, *pair.space.size, device=pair.device)
    if (moments := image_moments(pair.space)) is not None:
        mean, std = (images.new_tensor(values)[:, None, None] for values in moments)
        images = images * std + mean
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def answered(images: Tensor, pair: Pair, batch_size: int) -> Labelled:
    """Images with what P takes them for, found so many at a time."""
    return Labelled(images, torch.cat([pair.teacher(batch).argmax(dim=1) for batch in torch.split(images, batch_size)]))
