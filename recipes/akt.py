"""AKT: advanced knowledge transfer (Hong et al., SAC 2025, arXiv 2412.19125).

AdaDFQ in which Q also attends to what P attends to: the softmax of each block's mean squares by channel, and by place.
Published are sums over a batch of 200, weighted by 1,000; here the loss is a mean over images, so that as much
would be 200,000. Attentions by channel have norm 1 here, as those by place have: as published, their loss goes with the
fourth power of the features, and broke the default network. Blocks are those that reconstruction works on.
"""

from dataclasses import dataclass

from zerosum.objectives import attention_divergence
from zerosum.recipes import adadfq
from zerosum.recipes.adasg import make_game
from zerosum.recipes.common.data_free import Keeping, Subject, scene_of
from zerosum.runs import Experiment


@dataclass(frozen=True, kw_only=True)
class Config(adadfq.Config):
    """AKT: AdaDFQ with attention distillation."""

    attention: float = 2e4
    """Weight of the quantized network's attention distillation. Published: 1,000, of a sum over 200 images."""
    attention_temperature: float = 8.0
    """Softening of the attentions."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "attention")
        self.check_at_least(1e-3, "attention_temperature")


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A generator and a quantized copy of ``config.backbone``, or of a network that is handed in."""
    scene = scene_of(config, subject)
    keeping, game = Keeping(scene), make_game(scene, config)
    scene.look_inside()
    game.minimizer.terms = {
        **game.minimizer.terms,
        "attention": lambda play: (
            config.attention * attention_divergence(play.p_features, play.q_features, config.attention_temperature)
        ),
    }
    return keeping.experiment(game)
