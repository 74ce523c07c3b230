"""Images that are made first and then kept, and a pair in front of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zerosum import Game, Player, Response
from zerosum.players.spaces import image_moments
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.prior import Prior
from zerosum.recipes.common.scene import Scene


class Pixels(nn.Module):
    """The images themselves, (N, channels, height, width), as a source: its parameters, shown some at a time.

    Attributes:
        classes: (N,) int64, what a network takes each for, where :meth:`put` was told.
    """

    classes: Tensor

    def __init__(self, values: Tensor, batch_size: int) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.register_buffer("classes", torch.zeros(len(values), dtype=torch.int64, device=values.device))
        self.batch_size = batch_size

    @property
    def module(self) -> nn.Module:
        return self

    @torch.no_grad()
    def put(self, place: int, images: Tensor, network: nn.Module) -> None:
        """These in place of those from an index on, and what the network takes them for."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            chosen = slice(place + start, place + start + len(batch))
            self.values[chosen], self.classes[chosen] = batch, network(batch).argmax(dim=1)

    def sample(self) -> Tensor:
        """Indices of a batch, none twice; of all images, where there are no more."""
        return torch.randperm(len(self.values), device=self.values.device)[: self.batch_size]

    def images(self, drawn: Tensor) -> Tensor:
        return self.values[drawn]

    def labels(self, drawn: Tensor) -> Tensor:
        return self.classes[drawn]

    def shown(self, count: int, seed: int) -> Tensor:
        return torch.arange(count, device=self.values.device) % len(self.values)


class PoolScene(Scene):
    """A pair in front of images that are kept, in which Q answers, all its blocks once in each round of the plan, and
    nobody else moves; what comes of the last block is what is kept. The plan has no warm-up."""

    source: Pixels

    def __init__(self, pair: Pair, source: Pixels, prior: Prior, config: DataFreeOptions) -> None:
        super().__init__(pair, source, prior, config)
        self.held_out = None

    @torch.no_grad()
    def pool(self) -> Tensor:
        """All images, in random order."""
        return self.source.images(torch.randperm(len(self.source.values), device=self.pair.device))

    def _share_of(self, count: int) -> int:
        return 0  # nothing is made beside what is kept

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


def filling(pool: Pixels, way: Callable[[int], Tensor], at_once: int, network: nn.Module) -> Response:
    """A response for :class:`zerosum.Responding` that fills a pool by ``way(count)``, ``at_once`` images a round."""

    def respond(game: Game[Any], player: Player) -> None:
        place = game.round * at_once
        pool.put(place, way(min(at_once, len(pool.values) - place)), network)

    return respond
