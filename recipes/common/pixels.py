"""Images that are made first and then kept."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zerosum.players.spaces import image_moments
from zerosum.ranks import alike, part_of
from zerosum.recipes.common.pair import Pair


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
