"""Adversarial training: a classifier of digits against perturbations of its training images, beside ordinary training.

The perturbation player holds one perturbation a training image, inside an ε-ball, and raises the classifier's loss by
sign-gradient steps (Madry et al., ICLR 2018; kept from round to round as in Zheng et al., CVPR 2020). Ordinary training
is the same game without that player. Both classifiers are then attacked by another: on held-out images, along
the margin of the logits, by Adam, from several random starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich import get_console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop

from zerosum import Alternating, Game, Match, Player, Simultaneous
from zerosum.projections import box
from zerosum.runs import Experiment, Options, Outcome

Play = tuple[Tensor, Tensor]  # logits (N, 10), labels (N,)


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Train a small network on scikit-learn's digits to withstand perturbations, and once more without."""

    rounds: int = 150
    """Rounds, each of one step of the classifier on all training images."""
    epsilon: float = 0.15
    """How much a pixel may be moved; pixels are in 0 to 1."""
    steps: int = 3
    """Steps of the perturbations a round."""
    lr: float = 3e-3
    """Step size of the classifier (Adam)."""
    attack_steps: int = 40
    """Steps of the attack that measures robustness."""
    attack_starts: int = 3
    """Random starts of that attack; an image is withstood that is classified right as it is, and against all."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "epsilon", "lr")
        self.check_at_least(1, "steps", "attack_steps", "attack_starts")


class PerturbedImages(nn.Module):
    """Images (N, 1, 8, 8) with a perturbation each, the parameter."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.perturbation = nn.Parameter(torch.zeros_like(images))

    def forward(self) -> Tensor:
        return self.images + self.perturbation


def perturbations(images: PerturbedImages, optimizer: Optimizer, epsilon: float) -> Player:
    """The player that raises the payoff within ε of the images, pixel by pixel, and within 0 to 1."""
    low, high = (-images.images).clamp(min=-epsilon), (1 - images.images).clamp(max=epsilon)
    return Player("perturbations", images, optimizer, "maximize", projection=box(low, high))


def margin(play: Play) -> Tensor:
    """How far the best wrong logit is above the right one, up to 1 beyond (Carlini and Wagner 2017)."""
    logits, labels = play
    right = F.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(right, -torch.inf).amax(dim=1)
    return (wrong - logits[right]).clamp(max=1).mean()


def attack(classifier: nn.Module, images: Tensor, labels: Tensor, config: Config) -> Tensor:
    """Perturbed images (N, 1, 8, 8) found from one random start."""
    perturbed = PerturbedImages(images)
    player = perturbations(perturbed, Adam(perturbed.parameters(), config.epsilon / 4), config.epsilon)
    player.place([torch.empty_like(images).uniform_(-config.epsilon, config.epsilon)])
    player.project()
    game: Game[Play] = Game([player], play=lambda _: (classifier(perturbed()), labels), payoff=margin)
    Match(game, Simultaneous(), config.attack_steps).play()
    return perturbed().detach()


def recipe(config: Config) -> Experiment:
    """Adversarial and ordinary training, from the same start."""
    from sklearn.datasets import load_digits  # takes its time
    from sklearn.model_selection import train_test_split

    device = config.torch_device
    digits = load_digits()
    split = train_test_split(digits.images / 16, digits.target, test_size=0.3, random_state=0, stratify=digits.target)
    train, test = (torch.tensor(images, dtype=torch.float32, device=device).unsqueeze(1) for images in split[:2])
    train_labels, test_labels = (torch.tensor(labels, device=device) for labels in split[2:])

    def match(adversarial: bool, played: Mapping[str, Match]) -> Match:
        network = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
        ).to(device)
        images = PerturbedImages(train)
        sign = RMSprop(images.parameters(), config.epsilon / 4, alpha=0, eps=1e-30)  # g / |g|
        attacker = perturbations(images, sign, config.epsilon)
        classifier = Player("classifier", network, Adam(network.parameters(), config.lr), "minimize")
        game: Game[Play] = Game(
            players=[classifier, attacker] if adversarial else [classifier],
            play=lambda _: (network(images()), train_labels),
            payoff=lambda play: F.cross_entropy(*play),
        )

        def clean() -> dict[str, float]:
            with torch.no_grad():
                return {"clean": accuracy(network(test), test_labels)}

        return Match(game, Alternating(max_steps=config.steps), config.rounds, measure=clean, measure_every=50)

    def finish(matches: Mapping[str, Match], folder: Path) -> Outcome:
        table = Table("training", "clean accuracy (%)", f"robust accuracy (%), ε = {config.epsilon:g}")
        figures, shown = {}, {}
        on_terminal = get_console().is_terminal
        for name, played in matches.items():
            torch.manual_seed(config.seed)
            classifier = played.game.minimizer.module
            starts = track(range(config.attack_starts), f"attacking: {name}", transient=True, disable=not on_terminal)
            found = [attack(classifier, test, test_labels, config) for _ in starts]
            with torch.no_grad():
                seen = [classifier(images).argmax(dim=1) for images in (test, *found)]
            withstood = torch.stack([labels == test_labels for labels in seen]).all(dim=0)
            clean, robust = played.measured[-1][1]["clean"], withstood.double().mean().item() * 100
            figures[name] = {"clean_accuracy": clean, "robust_accuracy": robust}
            shown[name] = (found[-1], seen[-1])
            table.add_row(name, f"{clean:.1f}", f"{robust:.1f}")
            save_file(classifier.state_dict(), folder / name / "classifier.safetensors")
        draw(folder / "attacked.png", test, test_labels, shown)
        return Outcome(figures, table)

    stages = {"adversarial": partial(match, True), "ordinary": partial(match, False)}
    return Experiment(stages, finish, side_by_side=True)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """In percent."""
    return (logits.argmax(dim=1) == labels).double().mean().item() * 100


def draw(path: Path, images: Tensor, labels: Tensor, shown: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Held-out digits, and below them as attacked against each classifier, with what it takes them for."""
    from matplotlib.figure import Figure  # takes its time

    columns = 12
    figure = Figure(figsize=(columns, 1.3 * (1 + len(shown))), layout="constrained")
    axes = figure.subplots(1 + len(shown), columns)
    for row, (name, (pictures, seen)) in enumerate([("held-out", (images, labels)), *shown.items()]):
        for column, axis in enumerate(axes[row]):
            axis.imshow(pictures[column, 0].cpu().numpy(), cmap="gray", vmin=0, vmax=1)
            right = seen[column] == labels[column]
            axis.set_title(f"{seen[column].item()}", color="black" if right else "red", fontsize=10)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name)
    figure.savefig(path, dpi=110)
