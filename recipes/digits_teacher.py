"""Train the embedded networks on scikit-learn's digits: ``digits_resnet8``, which the AdaSG recipe quantizes by
default, and ``digits_vit``, which has no BatchNorm.

Either line writes network.safetensors, which is shipped as players/weights/<network>.safetensors: of seeds 0 to 4 the
network that plain rounding breaks most, to w2a3 the first and to w4a4 the second.

    python -m zerosum.run recipes/digits_teacher.py --seed 2
    python -m zerosum.run recipes/digits_teacher.py --network digits_vit --max-shift 0 --seed 4

It is a game itself: the network lowers a weighted mean of the classes' losses, an adversary moves the weights to the
classes that go worst (group DRO, Sagawa et al., ICLR 2020).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum import Game, Match, Player, Simultaneous
from zerosum.players import Architecture, accuracy, load_data, predict
from zerosum.players.data import Digits, evaluation_transform
from zerosum.ranks import alike, check_batch_size, share
from zerosum.runs import Experiment, Options, Outcome


class Training(NamedTuple):
    optimizer: Callable[..., Optimizer]  # of parameters and a step size
    lr: float  # step size, where no other is asked for


TRAININGS = {
    "digits_resnet8": Training(partial(SGD, momentum=0.9, nesterov=True, weight_decay=5e-4), 0.1),
    "digits_vit": Training(partial(AdamW, weight_decay=0.5), 3e-3),
}


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Train a small network on the training split of scikit-learn's digits; the held-out split only measures it."""

    network: Literal["digits_resnet8", "digits_vit"] = "digits_resnet8"
    """Which: a residual network (SGD with Nesterov momentum), or a Vision Transformer (AdamW)."""
    rounds: int = 2000
    """Rounds to play, one step of the network each."""
    batch_size: int = 64
    """Images a round."""
    lr: float | None = None
    """Step size of the network at the start; falls to 0 along a cosine. Default: 0.1 for digits_resnet8, 3e-3 for
    digits_vit."""
    adversary_lr: float = 0.01
    """Step size of the class weights' logits; 0 keeps the weights equal."""
    max_shift: int = 1
    """Training images are moved by up to this many pixels each way."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "lr", "adversary_lr", "max_shift")
        self.check_at_least(1, "batch_size")
        check_batch_size(self.batch_size)


class Play(NamedTuple):
    losses: Tensor  # (N,) cross-entropy
    weights: Tensor  # (N,) of each sample's class; 1 where the classes weigh the same


class ClassWeights(nn.Module):
    """A distribution over classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes))

    def forward(self, labels: Tensor) -> Tensor:
        return (self.logits.softmax(0) * len(self.logits))[labels]


def recipe(config: Config) -> Experiment:
    """The network against a weighting of the classes."""
    device = config.torch_device
    network = Architecture("timm", config.network, {}).build().to(device)
    train = Digits("train", evaluation_transform(network))
    images = torch.stack([image for image, _ in train]).to(device)  # type: ignore[attr-defined]
    labels = torch.as_tensor(train.labels, device=device)
    print(f"training split: mean {train.pixels.mean() / 255:.3f}, std {train.pixels.std() / 255:.3f}")
    held_out = load_data("digits", network)
    weights = ClassWeights(10).to(device)

    def sample() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (share(config.batch_size),), device=device)
        with alike():
            rows, columns = torch.randint(-config.max_shift, config.max_shift + 1, (2,)).tolist()
        return images[chosen].roll((rows, columns), dims=(2, 3)), labels[chosen]

    def play(batch: tuple[Tensor, Tensor]) -> Play:
        batch_images, batch_labels = batch
        losses = F.cross_entropy(network(batch_images), batch_labels, reduction="none")
        return Play(losses, weights(batch_labels))

    def measure() -> dict[str, float]:
        network.eval()
        top1 = accuracy(*predict(network, held_out, device))["top1"]
        network.train()
        return {"top1": top1}

    def finish(matches: Mapping[str, Match], folder: Path) -> Outcome:
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()}, folder / "network.safetensors"
        )
        top1 = match.measured[-1][1]["top1"]
        table = Table(config.network, "top-1 (%)")
        table.add_row("held-out digits", f"{top1:.2f}")
        return Outcome({"top1": top1}, table)

    training = TRAININGS[config.network]
    optimizer = training.optimizer(network.parameters(), training.lr if config.lr is None else config.lr)
    schedule = CosineAnnealingLR(optimizer, max(1, config.rounds))
    game = Game(
        players=(
            Player("class weights", weights, SGD(weights.parameters(), config.adversary_lr), "maximize"),
            Player("network", network, optimizer, "minimize", schedule=schedule),
        ),
        play=play,
        payoff=lambda play: (play.losses * play.weights).mean(),
        sample=sample,
    )
    match = Match(game, Simultaneous(), config.rounds, measure=measure, measure_every=200)
    return Experiment.of(match, finish)
