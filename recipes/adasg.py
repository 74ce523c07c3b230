"""AdaSG: data-free quantization as a zero-sum game (AAAI 2023, arXiv 2302.09572).

A generator invents samples on which the quantized copy Q of a trained network P disagrees with it, neither too much
nor too little; Q learns from P on them; the Balance Gap says when neither gains on the other any more.

The samples are kept natural by what P remembers of its own training images: the running statistics of its BatchNorm
layers. A network without them (ViT, Swin, ConvNeXt) must have attention, or else LayerNorm or GroupNorm, layers: there
the samples are made such that P tells their patches apart (PSAQ-ViT, ECCV 2022).
"""

from dataclasses import dataclass

from zerosum import Game
from zerosum.objectives import (
    adaptability,
    adaptability_band,
    agreement_loss,
    attention_divergence,
    calibration_loss,
    disagreement_loss,
    half_variance,
)
from zerosum.ranks import least
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, Play, Scene, Subject, scene_of
from zerosum.recipes.common.perturbation import moved_against
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """AdaSG: quantize a trained network to a few bits with no data, as a game between a generator and the copy."""

    generator_lr: float = 1e-3
    """Step size of the generator (Adam)."""
    low: float = 0.3
    """Lower end of the band in which samples are wanted, as normalised entropy of P's and Q's disagreement, 0 to 1."""
    high: float = 0.8
    """Upper end of that band."""
    disagreement: float = 0.1
    """Weight of the generator's disagreement loss."""
    agreement: float = 0.1
    """Weight of the generator's agreement loss."""
    bn_alignment: float = 1.0
    """Weight of the generator's BatchNorm alignment."""
    patch_entropy: float = 1.0
    """Weight of the patch-similarity entropy, which stands in where the network has no BatchNorm."""
    temperature: float = 20.0
    """Softening of the quantized network's loss, in logits. Published: 20 for CIFAR, 5 for ImageNet."""
    attention: float = 0.0
    """Weight of the quantized network's attention distillation, by channels and places of each block's output, which
    AdaSG has not (AKT); 0 leaves it out."""
    perturbation: float = 0.0
    """How far images are moved against the quantized network in a step of their own, from which it learns too, in
    normalised input space (HAST), which AdaSG has not; 0 leaves it out."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "perturbation", "generator_lr", "disagreement", "agreement")
        self.check_at_least(0, "bn_alignment", "patch_entropy", "attention")
        self.check_at_least(1e-3, "temperature")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"--low {self.low} --high {self.high}: expected a band within 0 to 1, low up to high")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    scene = scene_of(config, subject)
    return Keeping(scene).experiment(make_game(scene, config))


def make_game(scene: Scene, config: Config) -> Game[Play]:
    """Their game."""
    generator = scene.generator(
        config.generator_lr,
        surrogate=lambda play: adaptability_band(play.p, play.q, config.low, config.high, floor=least),
        terms={
            "disagreement": lambda play: config.disagreement * disagreement_loss(play.p, play.q, play.labels),
            "agreement": lambda play: config.agreement * agreement_loss(play.p, play.q, play.labels),
            **scene.natural(getattr(config, scene.prior.name)),
        },
    )

    terms = scene.rehearsing(lambda p, q: calibration_loss(p, q, config.temperature))
    if config.attention:
        scene.look_inside()
        terms["attention"] = lambda play: config.attention * attention_divergence(play.p_features, play.q_features)
    if config.perturbation:  # the calibration loss but for a constant, with P's part in its gradient
        terms["perturbed"] = moved_against(
            lambda play: half_variance(play.p, play.q).mean(), scene, config.perturbation
        )
    quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q, config.temperature), terms)
    return Game(
        players=(generator, quantized),
        play=scene.play,
        payoff=lambda play: adaptability(play.p, play.q, floor=least).mean(),
        sample=scene.source.sample,
    )
