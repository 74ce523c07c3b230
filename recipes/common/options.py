"""What every run of data-free quantization may be asked for."""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from rich.console import Console
from torch import nn

from zerosum import DynamicsName, players, ranks
from zerosum.players.backbones import InputSpace, checkpoint_file
from zerosum.players.export.targets import TARGETS, TargetName
from zerosum.players.loaders import is_named
from zerosum.players.pretrained import local_checkpoint, local_config, local_folder
from zerosum.ranks import check_batch_size
from zerosum.recipes.common.arithmetic import Precision, fast_precision, has_bfloat16
from zerosum.recipes.common.effort import Effort, Plan, plan_of
from zerosum.recipes.common.subject import Subject
from zerosum.runs import Options
from zerosum.runs.inputs import expand
from zerosum.runs.messages import flag

Chosen = TypeVar("Chosen", bound="DataFreeOptions")
DEFAULT_BACKBONE = "digits_resnet8"
_LONG = 200  # rounds of a game


@dataclass(frozen=True, kw_only=True)
class DataFreeOptions(Options):
    """Quantize a trained network to a few bits with no data."""

    backbone: str = DEFAULT_BACKBONE
    """The network to quantize: any timm name; cifar_resnet20, 32, 44, 56 too; local-dir:PATH or hf-hub:ORG/NAME, as
    timm saves networks; or package.module:factory, a function of yours that returns one: it is imported and called."""
    backbone_args: tuple[str, ...] = ()
    """Further arguments of the network or the factory, as KEY=VALUE, such as width=32; values are JSON or text."""
    weights: str | None = None
    """Its weights: "random", a .safetensors, .pth, .th or .ckpt file, or "package:NAME" for the one that an installed
    Python package brings. Default: timm's pretrained ones, the folder's, or what the factory gives."""
    weights_key: str | None = None
    """Which weights in the file, where it has several, such as state_dict_ema. Default: the plain ones."""
    num_classes: int | None = None
    """Classes of the network, where the weights have another number than the name stands for."""
    input_size: tuple[int, int, int] | None = None
    """Channels, height and width of the images that the weights were trained on. Default: what the name stands for."""
    mean: tuple[float, ...] = ()
    """Mean of their pixels, which are 0 to 1: one number for each channel, or one for all. Default: likewise."""
    std: tuple[float, ...] = ()
    """Standard deviation of their pixels. Default: likewise."""
    data: str | None = None
    """Real images, for measuring only: "digits"; a folder with one folder a class, named by the classes' indices, the
    network's own names for them or ImageNet's WordNet ids, or else in natural order; or a data set by timm's name for
    it, such as torch/cifar10, hfds/NAME, wds/NAME. Default: none; for digits_resnet8 and digits_vit, their held-out
    digits."""
    data_root: str | None = None
    """Of a data set by name: the folder that it lies in, or is to be cached in."""
    data_split: str = "validation"
    """Of a data set by name: which part of it."""
    workers: int = 0
    """Processes that prepare these images beside this one. They pay where that takes longer than the network does: for
    large pictures, or on a GPU. Nothing else changes."""
    bits: str = "w2a3"
    """Bits of weights (2 to 8) and activations (2 to 16), or 32 for full precision. The network's own input keeps 8."""
    layer_bits: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Other bits for some layers, as PATTERN=wXaY, such as 'blocks.5.*=w4a8'; may be given again."""
    first_last_bits: str | None = None
    """Bits of the first and the last layer, such as w8a8. Default: as all."""
    target: TargetName | None = None
    """The runtime that the network is for, which sets how grids are laid such that it computes with integers, and how
    zerosum export writes it: --sums quantized; where weights have more than 6 bits, --weight-grid symmetric (and but
    for tensorrt and executorch --weight-range pairwise); for tensorrt --activation-grid symmetric, for executorch
    --logits quantized. Default: none, and the most accurate grids."""
    scheme: tyro.conf.OmitArgPrefixes[players.Scheme] = field(default_factory=players.Scheme)
    """How grids are laid."""
    effort: Effort = "default"
    """How much work all that is not said otherwise may be; the run says beforehand what that comes to."""
    rounds: int | None = None
    """Rounds of the game, one step of each player in each; 0 leaves the network rounded, and nothing is learned.
    AdaSG's authors play 80,000. Default: by the effort and the network's size."""
    warmup: int | None = None
    """First rounds, in which the generator moves alone. AdaSG's authors: 800 of 80,000. Default: by the effort and the
    network's size; of --rounds that are given, at most two fifths."""
    block_steps: int | None = None
    """Steps of each block's reconstruction, when the quantized network comes in; 0 leaves it out. Default: by the
    effort."""
    renewals: int | None = None
    """How often all blocks are reconstructed again in the course of the game, after equal shares of it, each time on
    images that the generator makes by then. Default: once in a game of 200 rounds or more, but for quick runs and where
    all images are procedural."""
    pool: int | None = None
    """Images for the reconstruction. Default: by the effort."""
    leaves: float | None = None
    """Share of procedural images (dead leaves) in that pool, and among those that ranges are observed on, 0 to 1; the
    rest is the generator's. Default: a half; all, where the generator has too few rounds to become any better;
    none of fewer than 16 pixels a side."""
    dropped: float | None = None
    """Share of activations that stay in full precision while a block learns, 0 to 1 (QDrop). Default: a half where
    activations have 4 bits or fewer."""
    batch_size: int = 16
    """Images a round, of all ranks together."""
    calibration: int = 32
    """Batches of generated images on which activation ranges are observed, when the quantized network comes in. Where
    its blocks are reconstructed, the pool is taken instead."""
    conditioning: Literal["embedding", "batchnorm"] = "embedding"
    """How the generator takes labels. Published: embedding for CIFAR, batchnorm for ImageNet."""
    quantized_lr: float | None = None
    """Step size of the quantized network (SGD, Nesterov momentum) at first; falls to 0 along a cosine. Published, with
    80,000 rounds: 1e-4 for CIFAR, 1e-5 (AdaSG) or 1e-6 for ImageNet. Default: 3e-4, and 1e-4 for large networks."""
    dynamics: Literal[DynamicsName, "balanced"] = "simultaneous"
    """The rule by which the players move (docs/games.md). Published: simultaneous, both on the same images. Balanced
    gives rounds to whoever lags by the Balance Gap."""
    adjustment: float = 1e-3
    """Weight of what consensus and symplectic play add. The losses curve strongly: 0.1 breaks the default network."""
    gap_every: int = 100
    """Rounds from one reading of the Balance Gap to the next, about 4 % of the time."""
    gap_tolerance: float = 0.02
    """The game is stationary when the gap's mean over five readings stays this close to 0: so much the payoff, which
    lies in 0 to 1, may change from one to the next."""
    stop_when_stationary: bool = False
    """End the game as soon as it is stationary."""
    measure_every: int | None = None
    """Rounds from one measurement on the data to the next. Default: an eighth of all; a half for a quick run,
    a sixteenth for a thorough one; twice that for a large network. Besides when a player comes in, and at the end."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What networks compute in while they play and their blocks learn; grids, losses, optimizers and measuring stay in
    fp32. auto: bf16 where the device has instructions for it and the network gains by them on a trial of a second."""
    compile: bool = False
    """Let torch.compile (which needs a C++ compiler) fuse the generator and the full-precision network. It takes one or
    two minutes, and then saves 5 to 10 % of each round (docs/performance.md)."""

    def __post_init__(self) -> None:
        if (folder := local_folder(self.backbone)) is not None:  # from any directory, as all that a run reads
            object.__setattr__(self, "backbone", f"local-dir:{folder.absolute()}")
        if self.target is not None:
            left = players.Scheme()
            wanted = {
                name: value for name, value in self._wanted.items() if getattr(self.scheme, name) == getattr(left, name)
            }
            object.__setattr__(self, "scheme", dataclasses.replace(self.scheme, **wanted))

    def check(self) -> None:
        super().check()
        for name, value in self._wanted.items():
            if (other := getattr(self.scheme, name)) != value:
                raise ValueError(f"--target {self.target} {flag(name)} {other}: expected {value}, or no --target")
        self.check_at_least(0, "warmup", "block_steps", "renewals", "leaves", "dropped")
        self.check_at_least(0, "gap_tolerance", "adjustment", "workers", "quantized_lr")
        self.check_at_least(1, "batch_size", "calibration", "pool", "gap_every", "measure_every")
        check_batch_size(self.batch_size)
        for name in ("leaves", "dropped"):
            if (share := getattr(self, name)) is not None and share > 1:
                raise ValueError(f"--{name} {share}: expected a share, 0 to 1")
        if self.warmup == 0 and self.leaves is not None and self.leaves < 1:
            raise ValueError(f"--warmup 0 --leaves {self.leaves}: no generator has learned to make the other images")
        if self.renewals and self.block_steps == 0:
            raise ValueError(f"--renewals {self.renewals} --block-steps 0: no blocks answer that could do so again")
        players.Bits.parse(self.bits)
        players.arguments_of(self.backbone_args)
        if self.data_root is not None and not is_named(self.data or ""):
            raise ValueError(f"--data-root {self.data_root}: only a data set by name has one, such as torch/cifar10")

    @property
    def _wanted(self) -> dict[str, Any]:
        """What the target makes of the scheme, by the weights' bits; of bits that cannot be read, as of 8."""
        if self.target is None:
            return {}
        said = [self.bits, *(text.rpartition("=")[2] for text in self.layer_bits), self.first_last_bits or self.bits]
        with suppress(ValueError):
            return TARGETS[self.target].scheme(max(players.Bits.parse(text).weight for text in said))
        return TARGETS[self.target].scheme(8)

    def settled(self: Chosen, console: Console, *given: Any) -> Chosen:
        """With the precision that the network, by name or handed in, is fast in on the first rank's machine."""
        if self.precision != "auto":
            return self
        own: Precision = self._fast(console, *given) if ranks.index() == 0 else "fp32"
        return dataclasses.replace(self, precision=ranks.gathered(own)[0])

    def _fast(self, console: Console, subject: Subject | None = None) -> Precision:
        if self.rounds == 0 or not has_bfloat16(self.torch_device):
            return "fp32"
        network = self.find_backbone().network if subject is None else subject.twin().to(self.torch_device)
        return fast_precision(network, self.batch_size, console)

    def refuse(self, reason: str, *names: str) -> None:
        """That these options, which mean nothing here, have been left as they are.

        Raises:
            ValueError: one has not; ``reason`` ends the message.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            if (value := getattr(self, name)) != defaults[name]:
                raise ValueError(f"{flag(name)} {value}: {reason}")

    def refuse_contest(self) -> None:
        """That nothing is asked for which needs two players who contest a payoff."""
        self.refuse("nobody contests a payoff here", "gap_every", "gap_tolerance", "stop_when_stationary")
        if self.dynamics == "balanced":
            raise ValueError("--dynamics balanced: nobody contests a payoff here, so that nobody can lag")

    def inputs(self) -> Mapping[str, Path]:
        """The weights' file, also where a package or a folder brings it, the folder's config, and the folder of images,
        unless it is a hub's cache."""
        found = {}
        folder = local_folder(self.backbone)
        if folder is not None:
            found["backbone"] = local_config(folder)
        if self.weights is not None and self.weights != "random":
            found["weights"] = checkpoint_file(expand(self.weights))
        elif self.weights is None and folder is not None and folder.is_dir():
            found["weights"] = local_checkpoint(folder)
        if self.data is not None and is_named(self.data):
            if self.data_root is not None and self.data.lower().startswith("torch/"):
                found["data_root"] = expand(self.data_root)
        elif self.data is not None and self.data != "digits":
            found["data"] = expand(self.data)
        return found

    def find_backbone(self) -> players.Backbone:
        """The network that is asked for, and how it is built; see :func:`zerosum.players.find_backbone`."""
        return players.find_backbone(
            self.backbone,
            self.weights,
            self.num_classes,
            self.torch_device,
            args=players.arguments_of(self.backbone_args),
            input_size=self.input_size,
            mean=self.mean,
            std=self.std,
            weights_key=self.weights_key,
        )

    def plan(self, network: nn.Module, space: InputSpace) -> Plan:
        """The work to do, with what these options leave open as the effort has it for such a network."""
        made = plan_of(self.effort, network, space, players.Bits.parse(self.bits))
        rounds, warmup = made.rounds, made.warmup
        if self.rounds is not None:
            rounds, warmup = self.rounds, min(warmup, self.rounds * 2 // 5)
        warmup = warmup if self.warmup is None else self.warmup
        given = {name: getattr(self, name) for name in ("pool", "block_steps", "dropped", "leaves", "quantized_lr")}
        made = made._replace(**{name: value for name, value in given.items() if value is not None})
        warmup, steps, renewals = min(warmup, rounds), made.block_steps if rounds else 0, self.renewals
        if renewals is None:
            renewals = made.renewals if steps and rounds - warmup >= _LONG and made.leaves < 1 else 0
        return made._replace(rounds=rounds, warmup=warmup, block_steps=steps, renewals=renewals)
