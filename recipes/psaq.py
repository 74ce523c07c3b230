"""PSAQ-ViT: patch similarity aware data-free quantization for vision transformers (Li et al., ECCV 2022,
arXiv 2203.02250).

Pixels are optimized, while they roll and flip, until P tells the patches of an image apart and takes each image for the
class that it was given; the ranges of Q's activations are observed on them. Nothing is learned. Published is one batch
of 32 images, twice 500 rounds, a step size of 0.2 (here 0.5, falling), pixels cut to what is legal, and ranges from
extremes (``--activation-range minmax``). The total variation that images are drawn towards is published for 32 images
of 224 pixels, 2,500 to 3,000; here it is as large for each pixel.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerosum.objectives import total_variation
from zerosum.ranks import alike
from zerosum.recipes.common.augmentation import Rolled
from zerosum.recipes.common.data_free import AnsweringOnImages, Subject, pair_of
from zerosum.recipes.common.images_first import images_first
from zerosum.recipes.common.pixels import Pixels, noise
from zerosum.recipes.common.pool import AnsweringScene, synthesis_of
from zerosum.recipes.common.prior import PatchPrior
from zerosum.recipes.common.synthesis import Seen
from zerosum.recipes.reconstruction import answering
from zerosum.runs import Experiment

_PUBLISHED = 224
_LEAST, _MOST = (value / (32 * 3 * _PUBLISHED**2) ** 0.5 for value in (2500, 3000))


@dataclass(frozen=True, kw_only=True)
class Config(AnsweringOnImages):
    """PSAQ-ViT: ranges of a transformer's activations, observed on pixels whose patches it tells apart."""

    backbone: str = "digits_vit"
    """The network to quantize, as for every other method, with attention or LayerNorm layers."""
    rounds: int | None = 0
    """How often all blocks are reconstructed on the images, which PSAQ-ViT does not."""
    pool: int | None = 32
    """Images that are made."""
    synthesis_rounds: int = 1000
    """Rounds in which they are optimized."""
    synthesis_images: int = 32
    """Images that are optimized at a time."""
    roll: int = 30
    """Pixels by which an image is rolled at most, up and down, left and right, in each round; of smaller images, an
    eighth of their side."""
    variation: float = 0.05
    """Weight of the images' total variation."""

    def check(self) -> None:
        super().check()
        if self.rounds == 0:
            self.refuse("no blocks are reconstructed in 0 rounds", "block_steps")
        self.check_at_least(0, "roll", "variation")


def farthest(roll: int, side: int) -> int:
    """Pixels by which images of such a side are rolled."""
    return roll if side >= _PUBLISHED else min(roll, side // 8)


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Pixels, and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    pair = pair_of(config, subject)
    count = config.plan(pair.teacher, pair.space).pool
    scene = AnsweringScene(pair, Pixels(noise(count, pair), config.batch_size), PatchPrior(pair.teacher), config)
    synthesis, most = synthesis_of(scene, config), farthest(config.roll, min(pair.space.size))

    def variation(seen: Seen) -> Tensor:
        with alike():
            wanted = torch.empty((), device=pair.device).uniform_(_LEAST, _MOST) * seen.images.numel() ** 0.5
        return config.variation * (total_variation(seen.images) - wanted).abs()

    terms = {"class": lambda seen: F.cross_entropy(seen.logits, seen.labels), "variation": variation}
    return images_first(
        scene,
        "reconstruction",
        lambda: answering(scene),
        lambda count: synthesis.labelled(count, terms, lambda pixels: Rolled(pixels, most)),
        config.synthesis_images,
    )
