"""Qimera: data-free quantization with synthetic boundary supporting samples (Choi et al., NeurIPS 2021,
arXiv 2111.02625).

GDFQ whose generator also makes images between classes: latents of several classes, summed, with a label that has as
much of each. Learned class embeddings start random, as published for CIFAR-10 and MobileNetV2; those that start as
the rows of P's classifier are left out, and so is the conditional BatchNorm, which in the published code averages
the weighted embeddings of a superposed image where it should sum them.
"""

from dataclasses import dataclass

from zerosum.players.generator import generator_of
from zerosum.recipes import gdfq
from zerosum.recipes.common.data_free import Keeping, Scene, Subject, Superposed, pair_of, prior_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(gdfq.Config):
    """Qimera: GDFQ with images between classes."""

    superposed: float = 0.4
    """Share of the rounds in which images are superposed. Published: 0.4, and 0.7 for ResNet-50."""
    mixed: int = 2
    """Classes in each of these. Published: 2 for CIFAR-10, 10 for CIFAR-100, 100 to 500 for ImageNet."""

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "mixed")
        if not 0 <= self.superposed <= 1:
            raise ValueError(f"--superposed {self.superposed}: expected a share, 0 to 1")
        if self.conditioning != "embedding":
            raise ValueError(f"--conditioning {self.conditioning}: a latent between classes is a sum of embeddings")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    pair = pair_of(config, subject)
    generator = generator_of(pair.space, 1, conditioning="batchnorm")  # the source has the classes
    source = Superposed(generator, pair.classes, config.batch_size, config.superposed, config.mixed)
    scene = Scene(pair, source.to(pair.device), prior_of(pair.teacher), config)
    return Keeping(scene).experiment(gdfq.make_game(scene, config))
