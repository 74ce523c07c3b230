"""GDFQ: generative low-bitwidth data-free quantization (Xu et al., ECCV 2020)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from zerosum import Game
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, scene_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """GDFQ: images that P classifies as asked, with the statistics that its BatchNorm remembers; Q learns from P."""

    bn_alignment: float = 0.1
    """Weight of the generator's BatchNorm alignment."""
    distillation: float = 1.0
    """Weight of the quantized network's distillation beside its cross-entropy."""


def distillation_loss(p: Tensor, q: Tensor, temperature: float = 20.0) -> Tensor:
    soft = F.softmax(p.detach() / temperature, 1)
    return temperature**2 * F.kl_div(F.log_softmax(q / temperature, 1), soft, reduction="batchmean")


def recipe(config: Config) -> Experiment:
    scene = scene_of(config)
    generator = scene.generator(
        1e-3, lambda play: F.cross_entropy(play.p, play.labels), scene.natural(config.bn_alignment)
    )
    distillation = {"distillation": lambda play: config.distillation * distillation_loss(play.p, play.q)}
    quantized = scene.quantized(3e-4, lambda play: F.cross_entropy(play.q, play.labels), distillation)
    return Keeping(scene).experiment(Game((generator, quantized), scene.play, sample=scene.source.sample))
