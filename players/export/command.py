"""Exporting a run's quantized network, and trying what was exported: ``python -m zerosum.export``."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from zerosum.players.data import load_data, own_data
from zerosum.players.export.program import float_twin, integer_network, trace
from zerosum.players.export.targets import SMALL, TARGETS, TargetName
from zerosum.players.quantization import Scheme
from zerosum.players.storage import QUANTIZED, Description, load_described

if TYPE_CHECKING:
    from zerosum.players.export.rules import Broken
    from zerosum.players.export.trial import Report

TABLE = "export.json"
_AGREEMENT = 99.0  # percent of images that --check wants to have the same class
_TRACED = 2  # images; with one, torch.export takes their number for fixed


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a run's quantized network as ONNX (quantized.onnx) or as a torch.export program (quantized.pt2), try the
    file on real images beside PyTorch, and keep the comparison (export.json)."""

    format: Literal["onnx", "pt2"] = "onnx"
    """What to write: ONNX for ONNX Runtime and others, or a program that torch.export.load reads."""
    target: TargetName | None = None
    """The runtime that an ONNX file is for: laid out as its integer kernels want it, and checked against its rules;
    exit code 1, and what would keep them, where it breaks some. Default: the run's --target, or else a file as small as
    its bits for ONNX Runtime and OpenVINO."""
    opset: int = 21
    """Version of ONNX's operators, 18 or newer. From 21 on, weights of 4 bits and fewer are packed, two in a byte, but
    for a --target, whose integer kernels want them in 8 bits."""
    check: str | None = None
    """Images to compare on: "digits", or a folder as --data of a run; and exit with code 1 where fewer than 99 % of
    them get the same class. Default: the run's own data, if it is still there, or else random images; exit code 0."""
    trust: bool = False
    """Import and call the factory that the run's network is of (--backbone package.module:factory): code that the
    folder names."""


def export(folder: Path, options: ExportOptions, console: Console) -> bool:
    """Export the network in a run's folder; False where ``check`` or ``target`` was asked for and failed.

    Raises:
        ValueError, OSError: bad options or data, a damaged file, or a network that the format has no words for.
        ImportError: a package of the extra ``export`` is missing.
    """
    network, description = load_described(folder / QUANTIZED, trust=options.trust)
    images = images_to_compare(folder, options.check, network)
    path = folder / f"quantized.{options.format}"
    target = options.target
    if target is None and options.format == "onnx":
        target = _options_of_run(folder).get("target")
    report, broken = write(path, network, description, images, options.opset, console, _published(folder), target)
    figures = {"file": path.name, "images": images[1], "target": target, "broken_rules": [*map(str, broken)]}
    written = json.dumps(figures | report.figures, indent=2) + "\n"
    beside = folder / f"{TABLE}.part"
    beside.write_text(written, encoding="utf-8")
    _put(beside, folder / TABLE)
    if options.check is not None and report.agreement < _AGREEMENT:
        console.print(f"--check: {report.agreement:.2f} % agree, fewer than {_AGREEMENT:g} %", style="red")
        return False
    return options.target is None or not broken


def write(
    path: Path,
    network: nn.Module,
    description: Description,
    images: tuple[DataLoader[Any] | None, str],
    opset: int,
    console: Console,
    published: bool = False,
    target: TargetName | None = None,
) -> tuple["Report", Sequence["Broken"]]:
    """Write a quantized network, which returns logits, as ONNX or as a program of torch.export, by the path's suffix;
    and try the file beside it, and against its target's rules.

    Args:
        images: to compare on, None for random ones, and what they are called.
        opset: of ONNX's operators.
        published: whether the weights are those that the network's name stands for.
        target: the runtime that it is for.

    Raises:
        ValueError, OSError, ImportError: as :func:`export`.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{path}: expected a file that ends in .onnx or .pt2")
    if target is not None and path.suffix != ".onnx":
        raise ValueError(f"--target {target}: takes ONNX, and {path.name} is none")
    onnx_file = _import_onnx(opset) if path.suffix == ".onnx" else None
    with console.status("exporting"):
        noise = torch.randn(_TRACED, description.space.channels, *description.space.size)
        integers = integer_network(network, noise)
        program = trace(integers, noise)
        aside = path.with_name(f"{path.stem}.part{path.suffix}")
        if onnx_file is None:
            from zerosum.players.export.pt2_file import save_pt2

            save_pt2(program, aside)
        else:
            layout = SMALL if target is None else TARGETS[target].layout
            onnx_file.save_onnx(program, network, description, opset, aside, published, layout)
    _put(aside, path)

    from zerosum.players.export import trial

    console.print(f"{path}; compared on {images[1]}", soft_wrap=True, highlight=False, markup=False)
    if onnx_file is not None and target is None and (advice := _advice(description.scheme)):
        console.print(advice, soft_wrap=True, highlight=False, markup=False)
    report = trial.compare(path, network, float_twin(integers), images[0], opset)
    console.print(report.draw())
    widest = max(bits.weight for bits in description.bits.values())
    return report, [] if target is None else _check_rules(path, target, widest, console)


def _check_rules(path: Path, target: TargetName, widest: int, console: Console) -> Sequence["Broken"]:
    """Say which rules of a target a file breaks."""
    from zerosum.players.export.rules import broken_rules

    broken, about = broken_rules(path, target), TARGETS[target]
    if not broken:
        console.print(f"keeps the rules of {about.title} for integer kernels", style="green")
        return broken
    lines = [f"breaks rules of {about.title} for integer kernels; what it {about.otherwise}:"]
    lines += [*(f"  {rule}" for rule in broken), f"a run with --target {target} ({about.options(widest)}) keeps them"]
    console.print("\n".join(lines), style="red", soft_wrap=True, highlight=False, markup=False)
    return broken


def _put(aside: Path, path: Path) -> None:
    """In its place, once it is on the disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)


def _import_onnx(opset: int) -> Any:
    try:
        import onnxruntime  # noqa: F401 (the comparison needs it)

        from zerosum.players.export import onnx_file
    except ImportError as error:
        raise ImportError(f"exporting to ONNX needs the package {error.name}; pip install 'zerosum[export]'") from error
    if not onnx_file.LEAST_OPSET <= opset <= onnx_file.NEWEST_OPSET:
        newest = f"{onnx_file.NEWEST_OPSET}, the newest that the installed onnx knows"
        raise ValueError(f"--opset {opset}: expected {onnx_file.LEAST_OPSET} to {newest}")
    return onnx_file


def images_to_compare(folder: Path, check: str | None, network: nn.Module) -> tuple[DataLoader[Any] | None, str]:
    """Images to compare on, None for random ones, and what to call them."""
    if check is not None:
        return load_data(check, network), check
    run = _options_of_run(folder)
    source = run["data"] if run.get("data") is not None else own_data(run.get("backbone"))
    if source is None:
        return None, "random images"
    try:
        return load_data(source, network, root=run.get("data_root"), split=run.get("data_split", "validation")), source
    except (OSError, ValueError):
        return None, f"random images, because the run's own, {source}, cannot be read"


def _published(folder: Path) -> bool:
    """Whether the weights are timm's own, or a package's: nobody knows which classes those of a file are of."""
    weights = _options_of_run(folder).get("weights", "random")
    return weights is None or str(weights).startswith("package:")


def _options_of_run(folder: Path) -> dict[str, Any]:
    """What config.json has; nothing where there is none."""
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["options"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _advice(scheme: Scheme) -> str | None:
    wanted = []
    if scheme.weight_grid != "symmetric":
        wanted.append("--weight-grid symmetric")
    if scheme.sums != "quantized":
        wanted.append("--sums quantized")
    if not wanted:
        return None
    return (
        f"the run's scheme ({scheme}) is not one that integer kernels can run throughout: ONNX Runtime computes the "
        f"rest in float32, with the same values. Runs with {' and '.join(wanted)} give files for integer kernels."
    )
