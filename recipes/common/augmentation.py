"""Images as others see them: parts of them, moved, flipped."""

from typing import Any

import torch
from torch import Tensor

from zerosum.players.crops import cropped, random_crops
from zerosum.ranks import alike
from zerosum.recipes.common.source import Source


class Crops:
    """A source of which random parts are shown, enlarged (:func:`zerosum.players.crops.random_crops`).

    Args:
        least: share of an image that is shown of it.
        share: of the images, those of which a part is shown.
    """

    def __init__(self, source: Source, least: float, share: float = 1.0) -> None:
        self.source, self.least, self.share, self.module = source, least, share, source.module

    def sample(self) -> tuple[Any, Tensor]:
        drawn = self.source.sample()
        labels = self.source.labels(drawn)
        return drawn, random_crops(len(labels), self.least, self.share, labels.device)

    def images(self, drawn: tuple[Any, Tensor]) -> Tensor:
        return cropped(self.source.images(drawn[0]), drawn[1])

    def labels(self, drawn: tuple[Any, Tensor]) -> Tensor:
        return self.source.labels(drawn[0])

    def shown(self, count: int, seed: int) -> tuple[Any, Tensor]:
        drawn = self.source.shown(count, seed)
        device = self.source.labels(drawn).device
        return drawn, torch.eye(2, 3, device=device).expand(count, 2, 3)  # whole


class Rolled:
    """A source whose images are shown rolled along both axes, by up to ``most`` pixels, all of a batch alike, and every
    other time flipped."""

    def __init__(self, source: Source, most: int) -> None:
        self.source, self.most, self.module = source, most, source.module

    def sample(self) -> tuple[Any, tuple[int, int], bool]:
        with alike():
            down, right = torch.randint(-self.most, self.most + 1, (2,)).tolist()
            flipped = bool(torch.rand(()) < 0.5)
        return self.source.sample(), (down, right), flipped

    def images(self, drawn: tuple[Any, tuple[int, int], bool]) -> Tensor:
        chosen, offsets, flipped = drawn
        rolled = self.source.images(chosen).roll(offsets, dims=(2, 3))
        return rolled.flip(3) if flipped else rolled

    def labels(self, drawn: Any) -> Tensor:
        return self.source.labels(drawn[0])

    def shown(self, count: int, seed: int) -> tuple[Any, tuple[int, int], bool]:
        return self.source.shown(count, seed), (0, 0), False
