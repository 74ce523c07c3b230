"""Quantize the smallest network of every timm family, and write docs/coverage.md: ``python -m benchmarks.coverage``.

A family is a module under ``timm.models``. Networks have random weights and see random images, at the smallest size
that they take; nothing is downloaded.
"""

import copy
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from rich.progress import track
from timm.models import _registry
from torch import Tensor, nn

from zerosum.players import Bits, InputSpace, calibrate, quantize
from zerosum.players import small_resnets as small_resnets  # known to timm from now on, and no family of its
from zerosum.players import small_transformers as small_transformers  # likewise
from zerosum.players.blocks import find_blocks
from zerosum.players.quantization.precision import is_layer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
SIZES = (64, 128)
LARGEST = 200e6  # parameters: a copy, its gradients and a second copy have to fit in memory
CLOSE = 0.25  # of the outputs' norm, at w8a8 with random weights


class Row(NamedTuple):
    """A family: its network, and the reason where something is not as it should be; where it could be run, its input
    size, layers quantized, blocks found, those of a single layer, layers in none, and the distance of outputs relative
    to their norm."""

    family: str
    network: str
    reason: str
    size: int = 0
    layers: int = 0
    blocks: int = 0
    single: int = 0
    left_out: tuple[str, ...] = ()
    distance: float = float("nan")

    def cells(self) -> list[object]:
        """Of a table; empty where it could not be run."""
        if not self.layers:
            return [self.family, self.network, *[""] * 4, self.reason]
        alike = dict.fromkeys(re.sub(r"\d+", "*", name) for name in self.left_out)
        without = f", without {len(self.left_out)}: {', '.join(alike)}" if alike else ""
        division = f"{self.blocks} ({self.single}){without}"
        figures = [self.size, self.layers, division, f"{self.distance:.3f}"]
        return [self.family, self.network, *figures, self.reason or "pass"]


def families() -> dict[str, list[str]]:
    """timm's names of networks by family, without those registered here."""
    found = defaultdict(list)
    for name in timm.list_models():
        if timm.model_entrypoint(name).__module__.startswith("timm."):
            found[_registry._model_to_module[name]].append(name)
    return dict(sorted(found.items()))


def smallest(names: list[str]) -> tuple[str, int]:
    """The network with the fewest parameters, and how many it has."""
    sizes = []
    for name in names:
        with torch.device("meta"):
            sizes.append((sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters()), name))
    count, name = min(sizes)
    return name, count


def images_for(network: nn.Module) -> Tensor:
    """Two random images (2, 3, size, size) of the smallest size that the network takes."""
    default = network.default_cfg["input_size"][-1]
    for size in (*SIZES, default):
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, size, size))
            return torch.randn(2, 3, size, size)
        except Exception:
            if size == default:
                raise
    raise AssertionError("unreachable")


def check(family: str, name: str) -> Row:
    """Quantize one network at w8a8 and look at everything that may go wrong."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    for parameter in network.parameters():  # some start with a last layer of zeros, which says nothing
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    images = images_for(network)
    with torch.no_grad():
        expected = network(images)
    quantized = quantize(network, Bits(8, 8))
    calibrate(quantized, [images])
    output = quantized(images)
    output.square().mean().backward()
    distance = ((output - expected).norm() / expected.norm()).item()

    space = InputSpace(3, tuple(images.shape[2:]), (0.5,) * 3, (0.5,) * 3)
    blocks, left_out = find_blocks(network, space)
    single = sum(len(block.layers) == 1 for block in blocks)
    layers = {n: m for n, m in quantized.named_modules() if is_layer(m)}
    reasons = {
        "input not quantized": [n for n, m in layers.items() if not m.input_quantizer.observed],
        "no gradient": [n for n, m in layers.items() if m.parametrizations.weight.original.grad is None],
    }
    found = [f"{what}: {', '.join(names[:3])}{', …' * (len(names) > 3)}" for what, names in reasons.items() if names]
    if not distance <= CLOSE:
        found.append(f"outputs {distance:.2f} off")
    with torch.no_grad():
        again = quantize(network, Bits(8, 8))
        again.load_state_dict(quantized.state_dict())
        output = quantized(images)  # with a gradient, attention may be computed by another kernel
        if not torch.equal(again(images), output):
            found.append("a saved state gives another network")
        if not torch.equal(copy.deepcopy(quantized)(images), output):
            found.append("a copy is another network")
    reason = "; ".join(found)
    return Row(family, name, reason, images.shape[-1], len(layers), len(blocks), single, left_out, distance)


def check_family(family: str, names: list[str]) -> Row:
    """The row of a family; what cannot be built or run is said in it."""
    name, count = smallest(names)
    if count > LARGEST:
        return Row(family, name, f"not tried: {count / 1e6:.0f} M parameters")
    try:
        return check(family, name)
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else ""
        return Row(family, name, f"{type(error).__name__}: {first_line[:120]}")


def page(rows: list[Row], tried: int, passed: int, seconds: float) -> str:
    """docs/coverage.md."""
    layerwise = [row.family for row in rows if row.layers and row.single == row.blocks]
    lines = [
        "# Which networks can be quantized",
        "",
        f"Of timm {timm.__version__}'s {len(rows)} families (modules under `timm.models`) {tried} were tried, the "
        f"smallest network of each; {passed} pass ({passed / tried:.0%}).",
        f"`python -m benchmarks.coverage` wrote this page in {seconds / 60:.0f} minutes (PyTorch {torch.__version__}).",
        "",
        "A network passes when, at w8a8 and with random weights: its outputs stay within "
        f"{CLOSE:g} of their norm; a gradient reaches every quantized weight; every Conv and Linear layer has its "
        "weight and its input quantized; a saved state, and a copy, give the same network.",
        "",
        "Blocks are what is reconstructed by itself (`zerosum.players.blocks`), in brackets those of a single layer: "
        "stem, head, and what is between blocks. Layers that run several times or see no batch of images are in none, "
        f"and are named, without their numbers. Of single layers alone: {', '.join(layerwise) or 'no family'}.",
        "",
        "| family | network | input | layers | blocks | distance | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(map(str, row.cells()))} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code 1 where fewer than 95 % of the families that were tried pass."""
    started = time.monotonic()
    rows = [check_family(family, names) for family, names in track(families().items(), "families")]
    tried = sum(not row.reason.startswith("not tried") for row in rows)
    passed = sum(not row.reason for row in rows)
    PAGE.write_text(page(rows, tried, passed, time.monotonic() - started), encoding="utf-8")
    print(f"{passed} of {tried} families pass; see {PAGE}")
    return int(passed < 0.95 * tried)


if __name__ == "__main__":
    sys.exit(main())
