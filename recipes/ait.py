"""AIT: it's all in the teacher (Choi et al., CVPR 2022, arXiv 2203.17008).

GDFQ whose Q learns P's answers alone, for the gradient of labels points elsewhere; and, as what is left is too small
for weights to come to other levels, whose steps are as much longer as it takes for a share of each weight to do so.

The published code weighs the distillation by one over the classes, which for weights such steps make up for; and lets
the step size and the share fall tenfold, both, at a quarter, a half and three quarters of 80,000 rounds. Here both fall
along the cosine of the step size. Its search for a longer step has no end where no weight can come to another level.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from zerosum import Game
from zerosum.objectives import distillation_loss
from zerosum.players.quantization.flips import FlipFraction
from zerosum.recipes import gdfq
from zerosum.recipes.common.data_free import Keeping, Play, Scene, Subject, scene_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(gdfq.Config):
    """AIT: GDFQ in which Q learns from P alone, in steps that bring a share of each weight to other levels."""

    distillation: float = 1.0
    """Weight of the quantized network's distillation, which is all that it learns. Published code: one over the
    classes."""
    flips: float = 1e-3
    """Share of each weight's values that come to another level in a step, at least, 0 to 1; falls with the step size.
    Published: 1e-3 for CIFAR, 1e-4 for ImageNet; 0 leaves steps as they are."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "flips")
        if self.flips > 1:
            raise ValueError(f"--flips {self.flips}: expected a share, 0 to 1")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    scene = scene_of(config, subject)
    return Keeping(scene).experiment(make_game(scene, config))


def make_game(scene: Scene, config: Config) -> Game[Play]:
    """Both of them with labels, which may be probabilities of classes; Q does not look at them."""
    natural = scene.natural(config.bn_alignment, classes=False)
    generator = scene.generator(config.generator_lr, lambda play: F.cross_entropy(play.p, play.labels), natural)
    quantized = scene.quantized(
        lambda play: config.distillation * distillation_loss(play.p, play.q, config.temperature),
        optimizer=FlipFraction(scene.pair.student, scene.plan.quantized_lr, config.flips),
    )
    return Game((generator, quantized), scene.play, sample=scene.source.sample)
