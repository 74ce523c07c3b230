"""SynQ: accurate zero-shot quantization by synthesis-aware fine-tuning (Kim et al., ICLR 2025).

HAST whose Q sees images without their finest detail, learns the classes of those that are easy for P, and is to look at
what P looks at (Grad-CAM).

In the published code an image of zeros runs through Q while ranges are averaged, which shrinks these to two thirds; at
3 bits that alone gains 12 points on CIFAR-10 without a step of learning, and may be its lead over HAST. Here ranges are
observed as for every other method. Where the map is of the last convolution there, it is of the last block here; the
filter, for 224 pixels, does next to nothing at 32.
"""

from dataclasses import dataclass

from torch import Tensor

from zerosum import Game
from zerosum.objectives import activation_map_loss, low_pass, selective_cross_entropy
from zerosum.randomness import kept_random_state
from zerosum.recipes import hast
from zerosum.recipes.common.data_free import Play, Subject, pair_of, prior_of
from zerosum.recipes.common.perturbation import reaching_images
from zerosum.recipes.common.pool import PoolScene, pool_scene
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(hast.Config):
    """SynQ: HAST on images without fine detail, with the classes of easy images, and with maps of where P looks."""

    hardness: float = 0.1
    """Weight of the images' focal loss."""
    gamma: float = 0.5
    """Power by which that loss prefers images that P is unsure of."""
    cutoff: float = 80.0
    """Of the low pass, in cycles an image. Published: 20 to 100, searched for."""
    selective: float = 0.025
    """Weight of the cross-entropy with labels. Published: 0.025 for ResNet-18 at 3 bits, 0.00025 to 0.25 searched."""
    threshold: float = 0.5
    """It counts images whose class P gives a probability above one less this. Published: 0.5 to 0.7."""
    activation_map: float = 2.5
    """Weight of the distance between the maps of P and Q. Published: 2.5 for ResNet-18 at 3 bits, 1 to 100 searched."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "selective", "threshold", "activation_map")
        self.check_at_least(1e-3, "cutoff")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """Pixels, and a quantized copy of ``config.backbone``, or of a network that is handed in, to learn from them."""
    pair = pair_of(config, subject)
    scene = pool_scene(pair, prior_of(pair.teacher), config)
    scene.look_inside()
    if config.activation_map:
        check_maps(scene, config)
    return hast.on_hard_images(scene, config, lambda scene, _: make_game(scene, config))


def check_maps(scene: PoolScene, config: Config) -> None:
    """That there are such maps, before any images are made.

    Raises:
        ValueError: logits are not computed from what the last block gives, but from a rearrangement of it.
    """
    with kept_random_state():
        play = reaching_images(scene)(scene.source.sample())
    try:
        activation_map_loss(play.p_features[-1], play.p, play.q_features[-1], play.q)
    except RuntimeError as error:
        raise ValueError(
            f"--activation-map {config.activation_map}: {scene.pair.architecture.name} gives no maps of where it "
            "looks, which only convolutions do, not compiled; give 0"
        ) from error


def make_game(scene: PoolScene, config: Config) -> Game[Play]:
    """Q's alone, on the images and on what moves against it."""

    def distance(play: Play) -> Tensor:
        easy = selective_cross_entropy(play.q, play.p, play.labels, config.threshold)
        return hast.far_from(play, config) + config.selective * easy

    def maps(play: Play) -> Tensor:
        found = activation_map_loss(play.p_features[-1], play.p, play.q_features[-1], play.q)
        return config.activation_map * found

    terms = hast.against(scene, config, distance)
    quantized = scene.quantized(distance, terms | ({"activation_map": maps} if config.activation_map else {}))
    play = reaching_images(scene, lambda images: low_pass(images, config.cutoff))
    return Game((quantized,), play, sample=scene.source.sample)
