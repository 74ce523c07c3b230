"""Images made for a network alone, as the methods that play no game make theirs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler

from zerosum import Game, Graphed, Match, Player, Simultaneous, Term
from zerosum.objectives import bn_alignment
from zerosum.players import InputSpace, batchnorm_layers
from zerosum.players.generator import Conditioning, generator_of
from zerosum.players.swing import swinging
from zerosum.ranks import alike, moments
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.pixels import Labelled, Pixels, answered, noise
from zerosum.recipes.common.prior import BatchNormPrior, Moments, PatchPrior, Prior
from zerosum.recipes.common.source import Generated, Source

Way = Callable[[int], Labelled]
"""So many images, made anew; where nobody asked for classes, with what P takes them for."""
_LATENTS = 256  # dimensions


class Latents(Pixels):
    """A latent for each of N images, and a generator of all of them: a source whose every part moves."""

    def __init__(self, count: int, space: InputSpace, device: torch.device) -> None:
        super().__init__(torch.randn(count, _LATENTS, device=device), count)
        # Of one class, whose embedding is a scale of the latents.
        generator = generator_of(space, 1, latent_dim=_LATENTS)
        self.generator = generator.to(device).to(memory_format=torch.channels_last)

    def images(self, drawn: Tensor) -> Tensor:
        images: Tensor = self.generator(self.values[drawn], torch.zeros_like(drawn))
        return images


class DeviationPrior(BatchNormPrior):
    """BatchNorm's statistics as means and standard deviations, summed over layers, as ZeroQ and Genie have them."""

    def loss(self, seen: tuple[Sequence[Moments], Sequence[Moments]]) -> Tensor:
        both = moments(seen[0]), seen[1]
        batch, running = ([(mean, _root(variance)) for mean, variance in stats] for stats in both)
        return len(batch) * bn_alignment(batch, running)


def synthesis_prior(teacher: nn.Module) -> Prior:
    """That of deviations where the network has BatchNorm layers, else that of patches."""
    return DeviationPrior(teacher) if batchnorm_layers(teacher) else PatchPrior(teacher)


def input_moments(images: Tensor) -> Tensor:
    """Scalar >= 0: how far each image's channels are from mean 0 and deviation 1, squared; mean over both (ZeroQ)."""
    variance, mean = torch.var_mean(images, dim=(2, 3), correction=0)
    return (mean.square() + (_root(variance) - 1).square()).mean()


def _root(variance: Tensor) -> Tensor:
    return variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()  # of a constant, with gradient 0


class Seen(NamedTuple):
    """Images (N, channels, height, width), their labels (N,), logits (N, C) of P, and what the prior took of it."""

    images: Tensor
    labels: Tensor
    logits: Tensor
    taken: Any


class Synthesis:
    """Makes images that P takes for its own, each way from a fresh start at every call: so many of them.

    Pixels and latents are published with step sizes that wait for the loss to stand still; here these fall along a
    cosine, to 0 with the last round.

    Args:
        rounds: of each call; published: 500 to 1,000 for pixels, 4,000 for latents.
        batch_size: images a round of the generator; pixels and latents see all of theirs in each.
        arithmetic: in which networks compute.
        conditioning: how the generator takes labels.
    """

    def __init__(
        self,
        pair: Pair,
        prior: Prior,
        rounds: int,
        batch_size: int,
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
        conditioning: Conditioning = "embedding",
    ) -> None:
        self.pair, self.prior, self.rounds, self.batch_size = pair, prior, rounds, batch_size
        self.arithmetic, self.conditioning = arithmetic, conditioning
        self.ways: dict[str, Way] = {
            "generator": self.generator,
            "pixels": self.pixels,
            "latents": self.latents,
        }

    def pixels(self, count: int) -> Labelled:
        """Pixels, from noise (ZeroQ, Cai et al., CVPR 2020; moments of a batch, not of each image)."""
        source = Pixels(noise(count, self.pair), count)
        self._move(source, source, {"input_moments": _of_input})
        return self._answered(source.values.detach())

    def labelled(
        self, count: int, terms: Mapping[str, Term], shown: Callable[[Pixels], Source] = lambda pixels: pixels
    ) -> Labelled:
        """Pixels, from noise, each for a random class; ``terms`` beside the prior say what is to come of it, and
        ``shown`` how P sees them."""
        source = Pixels(noise(count, self.pair), count)
        source.classes.random_(self.pair.classes)
        self._move(source, shown(source), terms)
        return Labelled(source.values.detach(), source.classes)

    def _move(self, pixels: Pixels, source: Source, terms: Mapping[str, Term]) -> None:
        adam = Adam(pixels.parameters(), 0.5, fused=True)
        self._play(source, [adam], [CosineAnnealingLR(adam, max(1, self.rounds))], terms)

    def latents(self, count: int) -> Labelled:
        """Latents and a generator, while P swings (Genie-D, Jeon et al., CVPR 2023)."""
        source = Latents(count, self.pair.space, self.pair.device)
        adams = Adam([source.values], 0.1, fused=True), Adam(source.generator.parameters(), 0.01, fused=True)
        schedules = CosineAnnealingLR(adams[0], max(1, self.rounds)), ExponentialLR(adams[1], 0.95 ** (1 / 100))
        with swinging(self.pair.teacher, alike):
            self._play(source, adams, schedules, {"input_moments": _of_input})
        with torch.no_grad():
            return self._answered(source.images(torch.arange(count, device=self.pair.device)))

    def generator(self, count: int) -> Labelled:
        """A generator of whatever latents and labels, which P is to see (GDFQ, Xu et al., ECCV 2020)."""
        pair = self.pair
        generator = generator_of(pair.space, pair.classes, conditioning=self.conditioning)
        source = Generated(generator, self.batch_size, pair.device)
        adam = Adam(generator.parameters(), 1e-3, betas=(0.5, 0.999), fused=True)
        self._play(source, [adam], [], {"class": lambda seen: F.cross_entropy(seen.logits, seen.labels)})
        with torch.no_grad():
            batches = [source.images(source.sample()) for _ in range(0, count, self.batch_size)]
        return self._answered(torch.cat(batches)[:count])

    def _answered(self, images: Tensor) -> Labelled:
        return answered(images, self.pair, self.batch_size)

    def _play(
        self,
        source: Source,
        optimizers: Sequence[Optimizer],
        schedules: Sequence[LRScheduler],
        terms: Mapping[str, Term],
    ) -> None:
        def play(drawn: Any) -> Seen:
            with self.arithmetic():
                images = source.images(drawn)
                self.prior.listen()
                logits = self.pair.teacher(images).float()
            return Seen(images, source.labels(drawn), logits, self.prior.take())

        terms = {self.prior.name: lambda seen: self.prior.loss(seen.taken), **terms}
        player = Player("images", source.module, optimizers, "minimize", terms=terms, schedule=schedules)
        Match(Game((player,), play, sample=source.sample), Graphed(Simultaneous()), self.rounds).play()


def _of_input(seen: Seen) -> Tensor:
    return input_moments(seen.images)
