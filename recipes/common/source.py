"""Where images come from."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zerosum.players import ConditionalGenerator
from zerosum.players.generator import generator_of
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
        """(N,) int64: the classes that they are made for."""

    def shown(self, count: int, seed: int) -> Any:
        """So many draws, always the same ones, to be looked at; leaves all generators of random numbers alone."""


class Generated:
    """Made by a generator of latents ~ N(0, I) and labels ~ U{0..C-1}."""

    def __init__(self, generator: ConditionalGenerator, batch_size: int, device: torch.device) -> None:
        self.module = generator.to(device).to(memory_format=torch.channels_last)
        self.batch_size, self.device = batch_size, device

    def sample(self) -> tuple[Tensor, Tensor]:
        latents = torch.randn(self.batch_size, self.module.latent_dim, device=self.device)
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


def generated(pair: Pair, config: DataFreeOptions) -> Generated:
    """By a generator of images for the pair."""
    generator = generator_of(pair.space, pair.classes, conditioning=config.conditioning)
    return Generated(generator, config.batch_size, pair.device)
