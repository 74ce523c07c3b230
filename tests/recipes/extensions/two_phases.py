"""Images first, without the quantized network; then that network, on the images that are there."""

from dataclasses import dataclass

import pixels

from zerosum import Game
from zerosum.objectives import calibration_loss
from zerosum.recipes.common.data_free import Keeping
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(pixels.Config):
    """A pool of images, and then the quantized copy."""

    synthesis: int = 60
    """Rounds of the images."""
    warmup: int = 0
    """The images have been made when the copy begins."""


def recipe(config):
    scene, images = pixels.images_of(config)
    keeping = Keeping(scene)

    def synthesis(played):
        return keeping.stage(Game([images], scene.play, sample=scene.source.sample), config.synthesis)

    def quantization(played):
        quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q))
        return keeping.stage(Game([quantized], scene.play, sample=scene.source.sample), scene.plan.rounds)

    return Experiment({"images": synthesis, "quantization": quantization}, keeping.finish)
