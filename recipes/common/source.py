"""Where images come from."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerosum.players import ConditionalGenerator
from zerosum.players.generator import generator_of
from zerosum.ranks import alike, share
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair


class Source(Protocol):
    """Images (N, channels, height, width) in normalised input space, made by a module that may move."""

    @property
    def module(self) -> nn.Module:
        """Owns what moves."""

    def sample(self) -> Any:
        """What chance contributes to one batch: indices, latents and labels, …"""

    def images(self, drawn: Any) -> Tensor:
        """The images of what was drawn."""

    def labels(self, drawn: Any) -> Tensor:
        """(N,) int64: the classes that they are made for; or (N, C), probabilities of several."""

    def shown(self, count: int, seed: int) -> Any:
        """So many draws, always the same ones, to be looked at; leaves all generators of random numbers alone."""


class Generated:
    """Made by a generator of latents ~ N(0, I) and labels ~ U{0..C-1}."""

    def __init__(self, generator: ConditionalGenerator, batch_size: int, device: torch.device) -> None:
        self.module = generator.to(device).to(memory_format=torch.channels_last)
        self.batch_size, self.device = batch_size, device

    def sample(self) -> tuple[Tensor, Tensor]:
        latents = torch.randn(share(self.batch_size), self.module.latent_dim, device=self.device)
        return latents, torch.randint(self.module.num_classes, latents.shape[:1], device=self.device)

    def images(self, drawn: tuple[Tensor, Tensor]) -> Tensor:
        images: Tensor = self.module(*drawn)
        return images

    def labels(self, drawn: tuple[Tensor, Tensor]) -> Tensor:
        return drawn[1]

    def shown(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        source = torch.Generator().manual_seed(seed)
        latents = torch.randn(count, self.module.latent_dim, generator=source).to(self.device)
        return latents, torch.arange(count, device=self.device) % self.module.num_classes


class Superposed(nn.Module):
    """Made by a generator between classes: a latent is the sum of several classes' latents, and the label has as much
    of each (Qimera, NeurIPS 2021).

    Args:
        share: of the batches, those that are superposed; the others have one class an image.
        mixed: classes of an image of these; their weights are the softmax of N(0, 1).
    """

    def __init__(
        self, generator: ConditionalGenerator, classes: int, batch_size: int, share: float, mixed: int
    ) -> None:
        super().__init__()
        self.generator, self.classes, self.batch_size = generator, classes, batch_size
        self.share, self.mixed = share, mixed
        self.embedding = nn.Embedding(classes, generator.latent_dim)

    @property
    def module(self) -> nn.Module:
        return self

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        device = self.embedding.weight.device
        with alike():
            superposed = bool(torch.rand(()) < self.share)
        shape = share(self.batch_size), self.mixed if superposed else 1
        latents = torch.randn(*shape, self.generator.latent_dim, device=device)
        weights = torch.randn(shape, device=device).softmax(dim=1)
        return latents, torch.randint(self.classes, shape, device=device), weights

    def images(self, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        latents, labels, weights = drawn
        each = F.layer_norm(self.embedding(labels) + latents, latents.shape[-1:])
        images: Tensor = self.generator((weights[..., None] * each).sum(dim=1), torch.zeros_like(labels[:, 0]))
        return images

    def labels(self, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        _, labels, weights = drawn
        return weights.new_zeros(len(weights), self.classes).scatter_add(1, labels, weights)

    def shown(self, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        source, device = torch.Generator().manual_seed(seed), self.embedding.weight.device
        latents = torch.randn(count, 1, self.generator.latent_dim, generator=source).to(device)
        labels = torch.arange(count, device=device)[:, None] % self.classes
        return latents, labels, torch.ones(count, 1, device=device)


def generated(pair: Pair, config: DataFreeOptions) -> Generated:
    """By a generator of images for the pair."""
    generator = generator_of(pair.space, pair.classes, conditioning=config.conditioning)
    return Generated(generator, config.batch_size, pair.device)
