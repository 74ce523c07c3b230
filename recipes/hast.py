"""HAST: hard sample matters a lot in zero-shot quantization (Li et al., CVPR 2023, arXiv 2303.13826).

Where AdaSG's generator looks for what is hard all along, here pixels are made first, for classes, by a loss in which
those weigh more that P is unsure of; then Q learns from them alone, in each round on images, and on what one step
against it makes of these. The adversary is that step, within a ball of pixels.

Published is 20 times the sum here, with step sizes of 1e-5 (CIFAR) and 1e-6 (ImageNet), a pool of 5,120, and ranges
observed on the images of a generator that is made for that. Features are compared behind a block's addition here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from zerosum import Game, Term
from zerosum.objectives import feature_alignment, focal_loss, half_variance
from zerosum.recipes.common.data_free import LearningFromPool, Play, Subject, pair_of, prior_of
from zerosum.recipes.common.images_first import images_first
from zerosum.recipes.common.perturbation import moved_against, reaching_images
from zerosum.recipes.common.pool import PoolScene, pool_scene, synthesis_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(LearningFromPool):
    """HAST: hard images, made harder for the quantized network in each round; it learns P's logits and attention."""

    hardness: float = 10.0
    """Weight of the images' focal loss. Published: 10 for CIFAR, 0.1 for ImageNet."""
    gamma: float = 2.0
    """Power by which that loss prefers images that P is unsure of. Published: 2 for CIFAR, 0.5 for ImageNet."""
    alignment: float = 50.0
    """Weight of feature alignment beside half the variance of logits' differences. Published: 50 for CIFAR-10, 100 for
    CIFAR-100, 200 for ImageNet."""
    perturbation: float = 0.01
    """How far an image is moved against the quantized network, in normalised input space; 0 leaves that out."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "hardness", "gamma", "alignment", "perturbation")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Pixels, and a quantized copy of ``config.backbone``, or of a network that is handed in, to learn from them."""
    pair = pair_of(config, subject)
    scene = pool_scene(pair, prior_of(pair.teacher), config)
    scene.look_inside()
    return on_hard_images(scene, config, make_game)


def on_hard_images(scene: PoolScene, config: Config, game: Callable[[PoolScene, Config], Game[Play]]) -> Experiment:
    """Such a game, on pixels that are made for it."""
    synthesis = synthesis_of(scene, config)
    hard = {"hard": lambda seen: config.hardness * focal_loss(seen.logits, seen.labels, config.gamma)}
    return images_first(
        scene,
        "quantization",
        lambda: game(scene, config),
        lambda count: synthesis.labelled(count, hard),
        config.synthesis_images,
    )


def make_game(scene: PoolScene, config: Config) -> Game[Play]:
    """Q's alone, on the images and on what moves against it."""

    def distance(play: Play) -> Tensor:
        return far_from(play, config)

    quantized = scene.quantized(distance, against(scene, config, distance))
    return Game((quantized,), reaching_images(scene), sample=scene.source.sample)


def against(scene: PoolScene, config: Config, distance: Term) -> dict[str, Term]:
    """What is learned from the images moved, if they are."""
    return {"perturbed": moved_against(distance, scene, config.perturbation)} if config.perturbation else {}


def far_from(play: Play, config: Config) -> Tensor:
    """How far Q is from P, in logits and in what channels attend to."""
    aligned = feature_alignment(play.p_features, play.q_features)
    return half_variance(play.p, play.q).mean() + config.alignment * aligned
