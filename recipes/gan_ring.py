"""A GAN on a ring of eight Gaussians: which modes the generator covers, by rule of play.

A mode is covered when 2 % of the samples at least, and so a sixth of its share, lie within three standard deviations of
it (Srivastava et al., VEEGAN, NeurIPS 2017 count samples so too).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zerosum import DynamicsName, Game, Match, Player, make_dynamics
from zerosum.ranks import check_batch_size, share
from zerosum.runs import Experiment, Options, Outcome

MODES, STD, LATENTS = 8, 0.05, 8
Play = tuple[Tensor, Tensor]  # the discriminator's logits (N,) of real points, and of generated ones


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Train a GAN on eight Gaussians around a circle of radius 1, by several dynamics."""

    dynamics: tuple[DynamicsName, ...] = ("simultaneous", "alternating", "extragradient")
    """The rules to play by."""
    adjustment: float = 1.0
    """Weight of what consensus and symplectic play add."""
    rounds: int = 2000
    """Rounds of each."""
    batch_size: int = 128
    """Points a round, real ones and generated ones."""
    width: int = 128
    """Units in each of the two hidden layers of both networks."""
    lr: float = 1e-3
    """Step size of both players (Adam, betas 0.5 and 0.9)."""
    saturating: bool = False
    """The generator lowers the payoff, log(1 - D): a zero-sum game. Else it raises log D (Goodfellow et al. 2014)."""
    samples: int = 2500
    """Generated points that are looked at."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "lr", "adjustment")
        self.check_at_least(1, "batch_size", "width", "samples")
        check_batch_size(self.batch_size)
        self.check_each_once("dynamics")


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        *(nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)),
        nn.Linear(width, outputs),
    )


def recipe(config: Config) -> Experiment:
    """The same GAN, from the same start, by each of ``config.dynamics``."""
    device = config.torch_device
    angles = torch.arange(MODES, device=device) * (2 * math.pi / MODES)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)

    def sample() -> tuple[Tensor, Tensor]:
        count = share(config.batch_size)
        real = centres[torch.randint(MODES, (count,), device=device)] + STD * torch.randn(count, 2, device=device)
        return real, torch.randn(count, LATENTS, device=device)

    def match(dynamics: DynamicsName, played: Mapping[str, Match]) -> Match:
        generator = perceptron(LATENTS, config.width, 2).to(device)
        discriminator = perceptron(2, config.width, 1).to(device)

        def play(drawn: tuple[Tensor, Tensor]) -> Play:
            real, latents = drawn
            return discriminator(real).squeeze(1), discriminator(generator(latents)).squeeze(1)

        game: Game[Play] = Game(
            players=(
                Player(
                    "discriminator", discriminator, Adam(discriminator.parameters(), config.lr, (0.5, 0.9)), "maximize"
                ),
                Player(
                    "generator",
                    generator,
                    Adam(generator.parameters(), config.lr, (0.5, 0.9)),
                    "minimize",
                    surrogate=None if config.saturating else lambda play: -F.logsigmoid(play[1]).mean(),
                    average=AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.99)),  # type: ignore[no-untyped-call]
                ),
            ),
            play=play,
            payoff=lambda play: F.logsigmoid(play[0]).mean() + F.logsigmoid(-play[1]).mean(),
            sample=sample,
        )

        def coverage() -> dict[str, float]:
            near = torch.cdist(points(game, config), centres) <= 3 * STD
            return {
                "modes": float((near.double().mean(dim=0) >= 0.02).sum()),
                "near": near.any(1).double().mean().item(),
            }

        return Match(
            game,
            make_dynamics(dynamics, config.adjustment),
            config.rounds,
            measure=coverage,
            measure_every=max(1, config.rounds // 20),
        )

    def finish(matches: Mapping[str, Match], folder: Path) -> Outcome:
        table = Table("dynamics", f"modes covered, of {MODES}", "all from round", "samples near a mode (%)")
        figures = {}
        for name, played in matches.items():
            covered, near = (played.measured[-1][1][key] for key in ("modes", "near"))
            missed = [round for round, found in played.measured if found["modes"] < MODES]
            all_from = next((round for round, _ in played.measured if round > max(missed, default=-1)), None)
            figures[name] = {"modes_covered": int(covered), "all_from_round": all_from, "near_a_mode": near * 100}
            table.add_row(name, f"{covered:.0f}", str(all_from or "never"), f"{near * 100:.1f}")
        draw(folder / "rings.png", {name: points(m.game, config) for name, m in matches.items()}, sample()[0])
        return Outcome(figures, table)

    return Experiment({name: partial(match, name) for name in config.dynamics}, finish, side_by_side=True)


@torch.no_grad()
def points(game: Game[Play], config: Config) -> Tensor:
    """Points (samples, 2) of the averaged generator, at latents that are always the same."""
    source = torch.Generator().manual_seed(config.seed)
    latents = torch.randn(config.samples, LATENTS, generator=source).to(config.torch_device)
    average = game.minimizer.average
    assert average is not None
    return average(latents)


def draw(path: Path, generated: Mapping[str, Tensor], real: Tensor) -> None:
    """Generated points of each, over real ones."""
    from matplotlib.figure import Figure  # takes its time

    figure = Figure(figsize=(4 * len(generated), 4), layout="constrained")
    axes = figure.subplots(1, len(generated), squeeze=False)[0]
    for axis, (name, found) in zip(axes, generated.items(), strict=True):
        axis.scatter(*real.cpu().numpy().T, s=6, color="lightgrey", label="real")
        axis.scatter(*found.cpu().numpy().T, s=2, alpha=0.4, label="generated")
        axis.set(title=name, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    axes[0].legend(fontsize="small", loc="upper right")
    figure.savefig(path, dpi=110)
