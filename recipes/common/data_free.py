"""What every game of data-free quantization has: a trained network, its quantized copy, a generator of images.

A recipe adds what the two players want; the networks, the play, the measuring and what is kept are here.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro
from rich.console import Group
from torch import Tensor

import players
from players.backbones import _checkpoint as checkpoint_file
from zerosum import BalanceGap, DynamicsName, Game, Match, Options, Outcome, make_dynamics

DEFAULT_BACKBONE = "digits_resnet8"
_PICTURES = 30
_AHEAD = ("samples run ahead of the quantized network", "the quantized network runs ahead of the samples")


@dataclass(frozen=True, kw_only=True)
class DataFreeOptions(Options):
    """Quantize a trained network to a few bits with no data."""

    backbone: str = DEFAULT_BACKBONE
    """The network to quantize: any timm name; cifar_resnet20, 32, 44, 56 too."""
    weights: str | None = None
    """Its weights: "random", a .safetensors, .pth or .th file, or "package:NAME" for the one that an installed Python
    package brings. Default: timm's pretrained ones."""
    num_classes: int | None = None
    """Classes of the network, where the weights have another number than the name stands for."""
    data: str | None = None
    """Real images, for measuring only: "digits", or a folder with one folder a class; where WordNet ids are the names,
    they are classes of ImageNet, all or some. Default: none; for the default network, its held-out digits."""
    bits: str = "w2a3"
    """Bits of weights and activations, each 2 to 8, or 32 for full precision. The network's own input keeps 8."""
    layer_bits: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Other bits for some layers, as PATTERN=wXaY, such as 'blocks.5.*=w4a8'; may be given again."""
    first_last_bits: str | None = None
    """Bits of the first and the last layer, such as w8a8. Default: as all."""
    weight_range: players.WeightRange = "minmax"
    """How far the levels of a weight reach: over all of it, as far and as neighbours' sums (for 8-bit kernels of x86
    CPUs without VNNI), the central 99.9 %, for least squared error, or learned."""
    weight_grid: players.Symmetry = "asymmetric"
    """Whether zero is the middle level of a weight (symmetric)."""
    weight_granularity: players.Granularity = "per-channel"
    """One grid for each output channel of a weight, or one for all."""
    activation_range: players.ActivationRange = "ema"
    """How far those of activations reach; ema is the moving average of batch minima and maxima."""
    activation_grid: players.Symmetry = "asymmetric"
    """Whether zero is the middle level of activations (symmetric)."""
    sums: players.Sums = "float"
    """Whether additions (residual connections) and average pooling take 8-bit values too. With --weight-grid symmetric
    and bits such as w8a8, --sums quantized is the scheme that integer kernels run from end to end."""
    rounds: int = 2000
    """Rounds to play, one step of each player in each. AdaSG's authors play 80,000."""
    warmup: int = 100
    """First rounds, in which the generator moves alone; at most two fifths of all. AdaSG's authors: 800 of 80,000."""
    batch_size: int = 16
    """Images a round."""
    calibration: int = 32
    """Batches of generated images on which activation ranges are observed, when the quantized network comes in."""
    conditioning: Literal["embedding", "batchnorm"] = "embedding"
    """How the generator takes labels. Published: embedding for CIFAR, batchnorm for ImageNet."""
    dynamics: DynamicsName = "simultaneous"
    """The rule by which the players move (docs/games.md). Published: simultaneous, both on the same images."""
    adjustment: float = 1e-3
    """Weight of what consensus and symplectic play add. The losses curve strongly: 0.1 breaks the default network."""
    gap_every: int = 50
    """Rounds from one reading of the Balance Gap to the next."""
    gap_tolerance: float = 0.03
    """The game is stationary when the gap's running mean stays this close to 0; the payoff lies in 0 to 1."""
    stop_when_stationary: bool = False
    """End the game as soon as it is stationary."""
    measure_every: int | None = None
    """Rounds from one measurement on the data to the next. Default: an eighth of all."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the networks compute in while they play; grids, losses and optimizers stay in fp32, and so does measuring.
    bf16 wants a CPU or GPU with instructions for it, and is many times slower on others."""
    compile: bool = False
    """Let torch.compile (which needs a C++ compiler) fuse the generator and the full-precision network. It takes one or
    two minutes, and then saves 5 to 10 % of each round (docs/performance.md)."""

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "warmup", "gap_tolerance", "adjustment")
        self.check_at_least(1, "batch_size", "calibration", "gap_every", "measure_every")
        players.Bits.parse(self.bits)
        assert self.scheme  # refuses parts that do not go together

    def inputs(self) -> Mapping[str, Path]:
        """The weights' file, also where a package brings it, and the folder of images."""
        found = {}
        if self.weights is not None and self.weights != "random":
            found["weights"] = checkpoint_file(os.path.expanduser(self.weights))
        if self.data is not None and self.data != "digits":
            found["data"] = Path(os.path.expanduser(self.data))
        return found

    @property
    def scheme(self) -> players.Scheme:
        """How grids are laid."""
        return players.Scheme(
            self.weight_range,
            self.weight_grid,
            self.weight_granularity,
            self.activation_range,
            self.activation_grid,
            self.sums,
        )

    @property
    def warmup_rounds(self) -> int:
        """``warmup``, cut to two fifths of all rounds."""
        return min(self.warmup, self.rounds * 2 // 5)


class Play(NamedTuple):
    """One evaluation: labels (N,), logits (N, C) of P and Q, and the moments at P's BatchNorm layers; where P has none,
    how it represents the patches of the images."""

    labels: Tensor
    p: Tensor
    q: Tensor
    batch_stats: Sequence[tuple[Tensor, Tensor]] = ()
    running_stats: Sequence[tuple[Tensor, Tensor]] = ()
    patches: Sequence[Tensor] = ()


class Setting:
    """The networks of a game of data-free quantization, on one device, and what is done with them.

    ``teacher`` is P, frozen; ``student`` is Q, its quantized copy; ``generator`` makes images of latents and labels;
    ``taps`` read P's BatchNorm layers, or its patches where it has none.

    Raises:
        ValueError, OSError: input that cannot be worked with (see :mod:`players`).
    """

    def __init__(self, config: DataFreeOptions) -> None:
        self.config, self.device = config, config.torch_device
        teacher = players.load_backbone(config.backbone, config.weights, config.num_classes, self.device)
        self.teacher = teacher.requires_grad_(False).to(memory_format=torch.channels_last)
        first_last = players.Bits.parse(config.first_last_bits) if config.first_last_bits is not None else None
        bits = players.assign_bits(teacher, players.Bits.parse(config.bits), config.layer_bits, first_last)
        self.student = players.quantize(self.teacher, bits, config.scheme).requires_grad_(True)
        self.has_batchnorm = bool(players.batchnorm_layers(teacher))
        self.taps = players.BatchNormTaps(teacher) if self.has_batchnorm else players.PatchTaps(teacher)
        self.space = players.input_space(self.teacher)
        self.classes = int(self.teacher.num_classes)  # type: ignore[arg-type]
        self.generator = players.ConditionalGenerator(
            self.classes, self.space.size, self.space.channels, conditioning=config.conditioning
        )
        self.generator.to(self.device).to(memory_format=torch.channels_last)
        # The student stays as it is: a compiled backward pass computes all gradients, and each loss needs only some.
        self._generate = torch.compile(self.generator) if config.compile else self.generator
        self._teach = torch.compile(self.teacher) if config.compile else self.teacher
        source = "digits" if config.data is None and config.backbone == DEFAULT_BACKBONE else config.data
        self.examination = None
        if source is not None:
            loader = players.load_data(source, self.teacher, players.batch_that_fits(self.teacher))
            self.examination = players.Examination(self.teacher, self.student, loader, self.device)
        if config.warmup_rounds:
            self.calibrate()  # for the warm-up; ranges are observed afresh when the student comes in

    def sample(self) -> tuple[Tensor, Tensor]:
        """Latents ~ N(0, I) and labels ~ U{0..C-1} for one batch."""
        latents = self._latents(self.config.batch_size)
        return latents, torch.randint(self.classes, latents.shape[:1], device=self.device)

    def play(self, drawn: tuple[Tensor, Tensor]) -> Play:
        """Images of ``drawn`` latents and labels, seen by both networks."""
        with self._arithmetic():
            images = self._generate(*drawn)
            p, q = self._teach(images), self.student(images)
        p, q = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (p, q))
        if isinstance(self.taps, players.PatchTaps):
            return Play(drawn[1], p, q, patches=self.taps.take())
        return Play(drawn[1], p, q, *self.taps.take())

    @torch.no_grad()
    def calibrate(self) -> None:
        """Observe the student's activation ranges on images that the generator makes now."""
        batches = (self.generator(*self.sample()) for _ in range(self.config.calibration))
        title = "observing activation ranges"
        with self._arithmetic():
            players.calibrate(self.student, players.progress(batches, title, self.config.calibration))

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _latents(self, size: int) -> Tensor:
        return torch.randn(size, self.generator.latent_dim, device=self.device)

    def match(self, game: Game[Play]) -> Match:
        """The match of such a game: Balance Gap, measurements, and what is kept at the end."""
        config = self.config
        source = torch.Generator().manual_seed(config.seed)  # of its own: pictures change nothing in the game
        latents = torch.randn(_PICTURES, self.generator.latent_dim, generator=source).to(self.device)
        labels = torch.arange(_PICTURES, device=self.device) % self.classes

        def draw(path: Path) -> None:
            with game.undisturbed():
                images = self.generator(latents, labels)
                seen = self.teacher(images).argmax(dim=1)
            players.draw_samples(path, images, labels, seen, self.space)

        def finish(match: Match, folder: Path) -> Outcome:
            players.save_quantized(folder / players.QUANTIZED, self.student, config.backbone, config.scheme)
            with game.undisturbed():
                images = self.generator(latents, labels)
                layers = players.describe_layers(self.teacher, self.student, images, config.scheme)
            layers.write(folder / "layers.csv")
            if self.examination is not None:
                self.examination.write_classes(folder / players.CLASSES)
            figures, table = players.report(self.examination, match.measured, config.warmup_rounds)
            gap = match.verdict.figures["balance_gap_mean"] if match.verdict is not None else None
            sizes = {"float_bytes": layers.float_size, "quantized_bytes": layers.size}
            return Outcome(figures | {"balance_gap": gap} | sizes, Group(layers.draw(), table), "quantized-network")

        return Match(
            game,
            make_dynamics(config.dynamics, config.adjustment),
            config.rounds,
            criterion=BalanceGap(self.sample(), config.gap_every, config.gap_tolerance, ahead=_AHEAD),
            stop_when_stationary=config.stop_when_stationary,
            measure=self.examination,
            measure_every=config.measure_every or max(1, config.rounds // 8),
            best_by="top1",
            draw=draw,
            finish=finish,
        )
