"""IntraQ: learning synthetic images with intra-class heterogeneity (Zhong et al., CVPR 2022, arXiv 2111.09136).

Pixels are made first, for classes, such that those of one class differ: P sees random parts of every other one, is to
be of differing sureness, and is to find each neither too near to nor too far from the mean of its class; then Q learns
from parts of them. Published is 20 times the sum of losses here, with step sizes of 1e-4 (CIFAR) and 1e-6 (ImageNet),
and a pool of 5,120. For ImageNet the published script turns both constraints off (``--least-sure 1 --near 0 --far 2``).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerosum import Game
from zerosum.objectives import cosine_margin, half_variance, target_probability_loss
from zerosum.players.features import HeadTap
from zerosum.recipes.common.augmentation import Crops
from zerosum.recipes.common.data_free import LearningFromPool, Play, Source, Subject, pair_of, prior_of
from zerosum.recipes.common.images_first import images_first
from zerosum.recipes.common.pixels import Labelled, Pixels
from zerosum.recipes.common.pool import PoolScene, pool_scene, synthesis_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(LearningFromPool):
    """IntraQ: images that differ within their class, then distillation and cross-entropy on them."""

    least_sure: float = 0.95
    """Of every other image P is to be as sure as a number drawn from here to 1, and of the others wholly, 0 to 1."""
    near: float = 0.05
    """Least distance of an image's features from the mean of its class, 1 - cosine, 0 to 2."""
    far: float = 0.8
    """Greatest such distance."""
    cross_entropy: float = 0.05
    """Weight of Q's cross-entropy beside half the variance of logits' differences."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "least_sure", "near", "cross_entropy")
        if self.least_sure > 1:
            raise ValueError(f"--least-sure {self.least_sure}: expected a probability, 0 to 1")
        if not self.near <= self.far <= 2:
            raise ValueError(f"--near {self.near} --far {self.far}: expected distances of 0 to 2, near up to far")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Pixels, and a quantized copy of ``config.backbone``, or of a network that is handed in, to learn from them."""
    pair = pair_of(config, subject)
    scene = pool_scene(pair, prior_of(pair.teacher), config)
    synthesis, head = synthesis_of(scene, config), HeadTap(pair.teacher, pair.space)

    def parts(made: Pixels) -> Source:
        return Crops(made, config.crop, share=0.5) if config.crop < 1 else made

    def varied(count: int) -> Labelled:
        sure = torch.ones(count, device=pair.device)
        sure[::2] = torch.empty_like(sure[::2]).uniform_(config.least_sure, 1)
        with head:
            centres = class_centres(scene, head)
            terms = {
                "sureness": lambda seen: target_probability_loss(seen.logits, seen.labels, sure[: len(seen.labels)]),
                "margin": lambda seen: cosine_margin(head.features, centres[seen.labels], config.near, config.far),
            }
            return synthesis.labelled(count, terms, parts)

    return images_first(scene, "quantization", lambda: make_game(scene, config), varied, config.synthesis_images)


@torch.no_grad()
def class_centres(scene: PoolScene, head: HeadTap) -> Tensor:
    """(classes, D): the sum of the features of each class' images that are there, whose cosines are those of the mean;
    zeros where there are none."""
    total = torch.zeros(())
    for chosen in torch.split(torch.arange(len(scene.pixels.values)), scene.config.batch_size):
        scene.pair.teacher(scene.pixels.images(chosen))
        members = F.one_hot(scene.pixels.labels(chosen), scene.pair.classes) * scene.pixels.there[chosen, None]
        total = total + members.to(head.features).T @ head.features
    return total


def make_game(scene: PoolScene, config: Config) -> Game[Play]:
    """Q's alone."""
    quantized = scene.quantized(
        lambda play: half_variance(play.p, play.q).mean(),
        {"cross_entropy": lambda play: config.cross_entropy * F.cross_entropy(play.q, play.labels)},
    )
    return Game((quantized,), scene.play, sample=scene.source.sample)
