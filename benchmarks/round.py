"""Measure a round of AdaSG: ``python -m benchmarks.round``, beside the published one (docs/performance.md).

Both play in one process, turn and turn about, with the same networks, weights and options, from the same seed; on CUDA
the engine's rounds also recorded as a graph. Then: peak memory, on CPUs each in a process of its own; where the
engine's time goes; and how fast its convolutions and matrix products alone would be, the same calls on the same
tensors.
"""

import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.published import PublishedRound, without_hooks
from zerosum import Dynamics, Graphed, Simultaneous
from zerosum.memory import keep_freed_memory
from zerosum.players import calibrate
from zerosum.recipes.adasg import Config, make_game
from zerosum.recipes.common.data_free import scene_of

Precision = Literal["fp32", "tf32", "bf16"]
_TURNS = 7
_SECONDS = {"cpu": 1.0, "cuda": 0.25}  # of a turn
_FIRST = 4  # rounds, until kernels are chosen and a graph is recorded


class Case(NamedTuple):
    """One way to play, of one network."""

    backbone: str
    batch: int
    device: str
    precision: Precision = "fp32"
    compile: bool = False
    graphed: bool = False
    published: bool = False

    @property
    def name(self) -> str:
        if self.published:
            return f"published, {self.precision}"
        marks = (", --compile" if self.compile else "") + (", graph" if self.graphed else "")
        return f"engine, {self.precision}{marks}"


class Round:
    """The networks of a case, and one round of it."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        config = Config(
            backbone=case.backbone,
            weights="random",
            bits="w4a4",
            rounds=1,
            block_steps=0,  # which the published game has not, nor what is rehearsed for their sake
            batch_size=case.batch,
            device=case.device,  # type: ignore[arg-type]
            precision="bf16" if case.precision == "bf16" else "fp32",
            compile=case.compile,
        )
        self.case = case
        self.scene = scene_of(config)
        with torch.no_grad():
            calibrate(self.scene.pair.student, [self.scene.source.module(*self.scene.source.sample())])
        self.unquantized = without_hooks(self.scene.pair.teacher).to(memory_format=torch.channels_last)
        self.game = make_game(self.scene, config)
        self.rule: Dynamics = Graphed(Simultaneous()) if case.graphed else Simultaneous()
        self._published = PublishedRound(self.scene, config) if case.published else None

    def play(self) -> None:
        """One round, in which convolutions and matrix products on CUDA take float32 for what the case says."""
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.case.precision == "tf32"
        if self._published is not None:
            self._published.play()
        else:
            self.rule.step(self.game, self.game.players)


def seconds(action: Callable[[], Any], times: int = 1) -> float:
    """Of one call, on average over ``times``."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(times):
        action()
    wait()
    return (time.perf_counter() - started) / times


def least_seconds(action: Callable[[], Any]) -> float:
    """Of one call: the least of seven turns after a first, which is what a busy machine disturbs least."""
    action()
    return min(seconds(action) for _ in range(_TURNS))


def peak_memory(case: Case) -> int:
    """Bytes that a new process comes to need in its first rounds, above what it held before them (Linux); or, on CUDA,
    this one."""
    if case.device == "cuda":
        return _peak_memory(case)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (case,))


def _peak_memory(case: Case) -> int:
    game = Round(case)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        keep_freed_memory()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is held now
        before = _high_water_mark()
    for _ in range(_FIRST):
        game.play()
    return (torch.cuda.max_memory_allocated() if case.device == "cuda" else _high_water_mark()) - before


def _high_water_mark() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


class Arithmetic(TorchDispatchMode):
    """Keeps every convolution and matrix product that is computed inside, forward and backward, and counts its work."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []
        self.multiply_accumulates = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.calls.append((func, args, kwargs or {}))
            self.multiply_accumulates += _multiply_accumulates(func, args, result)
        return result

    def replay(self) -> None:
        """Compute it all once more."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def _multiply_accumulates(func: Any, args: Any, result: Any) -> int:
    """PyTorch's own count takes the backward pass of a grouped convolution for that of a full one."""
    if func is torch.ops.aten.convolution.default:
        x, weight, transposed = args[0], args[1], args[6]
        return (x if transposed else result).numel() * weight[0].numel()
    if func is torch.ops.aten.convolution_backward.default:
        gradient, x, weight, transposed, wanted = *args[:3], args[7], args[10]
        return (x if transposed else gradient).numel() * weight[0].numel() * sum(wanted[:2])
    return flop_registry[func.overloadpacket](*args, out_val=result) // 2


def arithmetic(game: Round) -> Arithmetic:
    """That of one round."""
    with Arithmetic() as found:
        game.play()
    return found


def breakdown(game: Round) -> dict[str, float]:
    """Seconds that the parts of an engine's round take, each measured by itself."""
    scene, unquantized = game.scene, game.unquantized
    drawn = scene.source.sample()
    images = scene.source.module(*drawn).detach().requires_grad_(True)

    def backward(outputs: list[Tensor], wanted: Any) -> Callable[[], Any]:
        towards = [torch.ones_like(x) for x in outputs]
        return lambda: torch.autograd.grad(outputs, wanted, towards, retain_graph=True)

    def seen_by_p() -> Tensor:
        scene.prior.listen()
        return scene.pair.teacher(images)

    generated, logits = scene.source.module(*drawn), seen_by_p()
    tapped = [logits, *(x for moments in scene.prior.take()[0] for x in moments)]
    actions = {
        "G forward": lambda: scene.source.module(*drawn),
        "G backward": backward([generated], list(scene.source.module.parameters())),
        "P forward": seen_by_p,
        "P backward": backward(tapped, images),
    }
    for name, network in {"Q": unquantized, "quantized Q": scene.pair.student}.items():
        outputs = [network(images)]
        actions |= {
            f"{name} forward": lambda network=network: network(images),
            f"{name} backward, for G": backward(outputs, images),
            f"{name} backward, for Q": backward(outputs, [p for p in network.parameters() if p.requires_grad]),
        }
    calls = arithmetic(game)
    for player in game.game.players:
        still = [torch.zeros_like(p) for p in player.parameters()]
        actions[f"optimizer of the {player.name}"] = lambda player=player, still=still: player.step(still)
    actions |= {"a round": game.play, "its convolutions and matrix products alone": torch.no_grad()(calls.replay)}
    found = {name: least_seconds(action) for name, action in actions.items()}
    both = ("forward", "backward, for G", "backward, for Q")
    found["fake quantization"] = sum(found.pop(f"quantized Q {part}") - found[f"Q {part}"] for part in both)
    whole, bare = found.pop("a round"), found.pop("its convolutions and matrix products alone")
    found["losses and all else"] = whole - sum(found.values())
    return found | {"a round": whole, "its convolutions and matrix products alone": bare}


def measure(backbone: str, batch: int, precisions: tuple[Precision, ...], compile: bool, device: str) -> None:
    """Print what there is to say of one network at one batch size."""
    plain = Case(backbone, batch, device, precisions[0])
    published = plain._replace(published=True)
    cases = [plain._replace(precision=precision) for precision in precisions]
    cases += [plain._replace(compile=True)] if compile else []
    cases += [case._replace(graphed=True) for case in cases] if device == "cuda" else []
    cases.insert(0, published)
    rounds = {case: Round(case) for case in cases}
    warm = {case: [seconds(game.play) for _ in range(_FIRST + 1)][-1] for case, game in rounds.items()}
    times: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(_TURNS):
        for case, game in rounds.items():
            times[case].append(seconds(game.play, max(1, round(_SECONDS[device] / warm[case]))))
    print(f"\n{backbone}, batch {batch}, {device}\n")
    print("| | rounds/s | least to most | × published | peak MB | M multiply-accumulates an image |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        speeds = sorted(1 / x for x in times[case])
        ratio = statistics.median(a / b for a, b in zip(times[published], times[case], strict=True))
        fixed = case.compile or case.graphed
        work = "" if fixed else f"{arithmetic(rounds[case]).multiply_accumulates / batch / 1e6:.0f}"
        print(
            f"| {case.name} | {statistics.median(speeds):.2f} | {speeds[0]:.2f} to {speeds[-1]:.2f} | {ratio:.2f} "
            f"| {peak_memory(case) / 1e6:.0f} | {work} |",
            flush=True,
        )
    parts = breakdown(rounds[plain])
    print(f"\n| {plain.name} | ms | share |\n|---|---|---|")
    for name, value in parts.items():
        print(f"| {name} | {value * 1e3:.1f} | {value / parts['a round']:.0%} |")


def main(
    backbones: tuple[str, ...] = ("cifar_resnet20", "tf_efficientnet_lite0"),
    batches: tuple[int, ...] = (16, 64),
    precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16") if torch.cuda.is_available() else ("fp32", "bf16"),
    compile: bool = False,
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Measure rounds of AdaSG.

    Args:
        backbones: any timm names, with random weights.
        batches: images a round.
        precisions: of the engine; the published round is in the first.
        compile: measure --compile too.
        device: where.
    """
    keep_freed_memory()
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else f", {torch.cuda.get_device_name()}"
    print(f"PyTorch {torch.__version__}{threads}; {_TURNS} turns of {_SECONDS[device]} s or a round")
    for backbone in backbones:
        for batch in batches:
            measure(backbone, batch, precisions, compile, device)


if __name__ == "__main__":
    tyro.cli(main)
