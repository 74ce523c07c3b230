"""DFQ: data-free quantization through weight equalization and bias correction (Nagel et al., ICCV 2019,
arXiv 1906.04721).

No image is needed, nothing is learned, and nobody plays: weights are scaled such that channels reach equally far, the
ranges of activations come from what BatchNorm layers say of what they give, and the shift that rounding causes in each
layer's mean output is taken back. It takes seconds.

BatchNorm is not folded here, so it takes part (:mod:`zerosum.players.equalization`). The paper puts ReLU in the place
of ReLU6 first, absorbs biases that equalization made large into the next layer, and corrects biases for rounded weights
alone; the first two are left out, the third takes rounded activations in. Its ranges of activations are β ± 6γ; here
each activation's own rule lays the grid over samples (:mod:`zerosum.players.propagation`). What no BatchNorm tells of
(the network's input, what leaves a layer without BatchNorm, what is multiplied, quantized sums) is observed on Gaussian
noise with the moments of photographs that goes through the network; in a network without BatchNorm, or one that
torch.fx cannot trace, that is all.
"""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn

from zerosum import Game, Player, Responding, players
from zerosum.objectives import calibration_loss
from zerosum.players import InputSpace
from zerosum.players.equalization import equalized
from zerosum.players.graph import traced
from zerosum.players.propagation import correct_biases, entering, observe
from zerosum.recipes.common.data_free import DataFreeOptions, Keeping, NoPrior, Pair, Play, Subject, pair_of
from zerosum.recipes.common.effort import Plan
from zerosum.recipes.common.pixels import Pixels, answered, noise
from zerosum.recipes.common.pool import PoolScene
from zerosum.runs import Experiment

_SENSELESS = (
    *("rounds", "warmup", "block_steps", "renewals", "pool", "leaves", "dropped", "quantized_lr"),
    *("dynamics", "adjustment", "conditioning"),
)


@dataclass(frozen=True, kw_only=True)
class Config(DataFreeOptions):
    """DFQ: quantize a trained network with no data, no game and no learning, by equalizing and correcting it."""

    equalize: bool = True
    """Whether channels are first made to reach equally far. Made for --weight-granularity per-tensor; grids per
    channel gain little by it, if anything."""
    correct: bool = True
    """Whether shifts of layers' mean outputs are taken back; the summary has the accuracy before and after."""

    def check(self) -> None:
        super().check()
        self.refuse("nothing is played or learned here", *_SENSELESS)
        self.refuse_contest()

    def plan(self, network: nn.Module, space: InputSpace) -> Plan:
        return super().plan(network, space)._replace(rounds=0, warmup=0, block_steps=0, renewals=0)


class Propagated(PoolScene):
    """A pair in front of noise, where the ranges of Q are those that the BatchNorm layers of P tell, as far as they
    do."""

    def __init__(self, pair: Pair, config: Config) -> None:
        images = noise(config.calibration * config.batch_size, pair)
        super().__init__(pair, Pixels(images, config.batch_size), NoPrior(), config)
        self.pixels.put(0, answered(images, pair, config.batch_size))
        self.graph = traced(pair.teacher, pair.space)
        if self.graph is None:
            warnings.warn(
                f"{pair.architecture.name}: torch.fx cannot trace it, so that nothing is equalized or corrected, and "
                "ranges are those of noise",
                stacklevel=3,
            )
        self.samples = {} if self.graph is None else entering(self.graph)

    def calibrate(self, provisionally: bool = False) -> None:
        super().calibrate(provisionally)
        observe(self.pair.student, self.samples)

    def correct(self, game: Game[Any], player: Player) -> None:
        """Q's one answer."""
        if self.graph is not None:
            correct_biases(self.pair.student, self.graph, self.samples)


def recipe(config: Config, subject: Subject | None = None) -> Experiment:
    """A quantized copy of ``config.backbone``, or of a network that is handed in."""
    pair = pair_of(config, subject)
    if config.equalize:
        network, bits = equalized(pair.teacher, pair.space), players.layer_bits(pair.student)
        pair = Pair(network, bits, pair.scheme, pair.space, pair.device, pair.architecture, pair.data)
    scene = Propagated(pair, config)
    keeping = Keeping(scene)
    quantized = scene.quantized(lambda play: calibration_loss(play.p, play.q))  # it answers, and never steps
    game: Game[Play] = Game((quantized,), scene.play, sample=scene.source.sample)
    return Experiment.of(keeping.stage(game, int(config.correct), Responding(scene.correct)), keeping.finish)
