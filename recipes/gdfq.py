"""GDFQ: generative low-bitwidth data-free quantization (Xu et al., ECCV 2020, arXiv 2003.03603).

The generator makes images that P takes for the classes they are made for, with the statistics that P's BatchNorm layers
remember; Q learns P's answers, and the classes. Nobody contests anything: the generator does not ask how Q does.

The published code divides the distillation by the number of classes (torch's ``KLDivLoss`` averages over them), which
leaves the cross-entropy to teach Q alone on ImageNet; plays 80,000 rounds of 200 images (CIFAR), with ranges that are
a moving average of batch extremes, frozen after 800; and reports the best of its measurements on the test set.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from zerosum import Game
from zerosum.objectives import distillation_loss
from zerosum.recipes.common.data_free import AsPublished, Keeping, Play, Scene, Subject, scene_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(AsPublished):
    """GDFQ: images that P classifies as asked, with the statistics that its BatchNorm remembers; Q learns from P."""

    generator_lr: float = 1e-3
    """Step size of the generator (Adam)."""
    bn_alignment: float = 0.1
    """Weight of the generator's BatchNorm alignment; where the network has none, of the patch-similarity entropy."""
    distillation: float | None = None
    """Weight of the quantized network's distillation beside its cross-entropy. Default, as published: one over the
    classes."""
    temperature: float = 20.0
    """Softening of that distillation, in logits."""

    def check(self) -> None:
        super().check()
        self.refuse_contest()
        self.check_at_least(0, "generator_lr", "bn_alignment", "distillation")
        self.check_at_least(1e-3, "temperature")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    scene = scene_of(config, subject)
    return Keeping(scene).experiment(make_game(scene, config))


def make_game(scene: Scene, config: Config) -> Game[Play]:
    """Both of them with labels, which may be probabilities of classes."""
    share = 1 / scene.pair.classes if config.distillation is None else config.distillation
    natural = scene.natural(config.bn_alignment, classes=False)
    generator = scene.generator(config.generator_lr, lambda play: F.cross_entropy(play.p, play.labels), natural)
    quantized = scene.quantized(
        lambda play: F.cross_entropy(play.q, play.labels),
        {"distillation": lambda play: share * distillation_loss(play.p, play.q, config.temperature)},
    )
    return Game((generator, quantized), scene.play, sample=scene.source.sample)
