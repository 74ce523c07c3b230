"""ZAQ: zero-shot adversarial quantization (Liu et al., CVPR 2021, arXiv 2103.15263).

The one rival that is a zero-sum game: the generator raises, and Q lowers, how far Q is from P, in logits and in how
features relate to one another; the generator alone also wants P to respond strongly. Nothing else keeps images natural.

Left out: the generator without labels (here latents are multiplied by a label's embedding, which nothing reads), and
what makes the published figures not data-free: activation ranges that go on widening on the test set, and BatchNorm in
training mode, which the published step size, 0.1, is for. A stage is the blocks of one resolution, of which the last is
looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from zerosum import Alternating, Game
from zerosum.objectives import relation_loss
from zerosum.recipes.common.data_free import AsPublished, Keeping, NoPrior, Play, Scene, Subject, generated, pair_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(AsPublished):
    """ZAQ: a generator raises, and the quantized network lowers, the distance from P in logits and in relations."""

    generator_lr: float = 1e-3
    """Step size of the generator (Adam)."""
    quantized_steps: int = 5
    """Steps of the quantized network for each of the generator's."""
    relations: float = 1.0
    """Weight of the relations of features in what is contested."""
    activation: float = 0.1
    """Weight of the generator's wish that P's last features be large."""
    gap_tolerance: float = 0.03
    """The game is stationary when the gap's mean over five readings stays this close to 0, in units of the payoff, a
    distance of logits and features that has no bound; nobody has measured what it is worth."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "generator_lr", "relations", "activation")
        self.check_at_least(1, "quantized_steps")
        if self.dynamics != "simultaneous":
            raise ValueError(f"--dynamics {self.dynamics}: this game alternates, --quantized-steps to one")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    pair = pair_of(config, subject)
    scene = Scene(pair, generated(pair, config), NoPrior(), config)
    return Keeping(scene).experiment(make_game(scene, config), Alternating(min_steps=config.quantized_steps))


def make_game(scene: Scene, config: Config) -> Game[Play]:
    """Their game, of what blocks give too."""
    scene.look_inside()

    def distance(play: Play) -> Tensor:
        stages = (_stages(play.p_features), _stages(play.q_features))
        return F.l1_loss(play.q, play.p) + config.relations * relation_loss(*stages)

    responses = {"activation": lambda play: -config.activation * play.p_features[-1].abs().mean()}
    generator = scene.generator(config.generator_lr, None, responses)
    quantized = scene.quantized(None)
    return Game((generator, quantized), scene.play, distance, scene.source.sample)


def _stages(features: Sequence[Tensor]) -> list[Tensor]:
    return list({x.shape[2:]: x for x in features}.values())
