"""ZAQ: zero-shot adversarial quantization (Liu et al., CVPR 2021, arXiv 2103.15263).

The one rival that is a zero-sum game: the generator raises, and Q lowers, how far Q is from P, in logits and in how
features relate to one another; the generator alone also wants P to respond strongly. Nothing else keeps images natural.

Left out: the generator without labels (here latents are multiplied by a label's embedding, which nothing reads), and
what makes the published figures not data-free: activation ranges that go on widening on the test set, and BatchNorm in
training mode. Blocks are those that reconstruction works on; published are a network's three stages. The published step
size, 0.1, is for the training mode.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from zerosum import Alternating, Game
from zerosum.objectives import relation_loss
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, Play, Scene, Subject, scene_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """ZAQ: a generator raises, and the quantized network lowers, the distance from P in logits and in relations."""

    generator_lr: float = 1e-3
    """Step size of the generator (Adam)."""
    quantized_lr: float = 1e-3
    """Step size of the quantized network at first; falls to 0 along a cosine."""
    quantized_steps: int = 5
    """Steps of the quantized network for each of the generator's."""
    relations: float = 1.0
    """Weight of the relations of features in what is contested."""
    activation: float = 0.1
    """Weight of the generator's wish that P's last features be large."""
    block_steps: int | None = 0
    """Steps of each block's reconstruction, when the quantized network comes in. Published: none."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "generator_lr", "quantized_lr", "relations", "activation")
        self.check_at_least(1, "quantized_steps")
        if self.dynamics != "simultaneous":
            raise ValueError(f"--dynamics {self.dynamics}: this game alternates, --quantized-steps to one")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    scene = scene_of(config, subject)
    return Keeping(scene).experiment(make_game(scene, config), Alternating(min_steps=config.quantized_steps))


def make_game(scene: Scene, config: Config) -> Game[Play]:
    """Their game, of what blocks give too."""
    scene.look_inside()

    def distance(play: Play) -> Tensor:
        return F.l1_loss(play.q, play.p) + config.relations * relation_loss(play.p_features, play.q_features)

    responses = {"activation": lambda play: -config.activation * play.p_features[-1].abs().mean()}
    generator = scene.generator(config.generator_lr, None, responses)
    quantized = scene.quantized(config.quantized_lr, None)
    return Game((generator, quantized), scene.play, distance, scene.source.sample)
