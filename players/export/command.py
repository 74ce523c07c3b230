"""Exporting a run's quantized network, and trying what was exported: ``python -m zerosum.export``."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zerosum.players.data import load_data, own_data
from zerosum.players.export.program import float_twin, integer_network, trace
from zerosum.players.export.targets import SMALL, TARGETS, Broken, Format, TargetName, formats_for
from zerosum.players.quantization import Scheme
from zerosum.players.quantization.precision import FULL_PRECISION
from zerosum.players.storage import QUANTIZED, Description, load_described

if TYPE_CHECKING:
    from zerosum.players.export.trial import Report

TABLE = "export.json"
_AGREEMENT = 99.0  # percent of images that --check wants to have the same class
_TRACED = 2  # images; with one, torch.export takes their number for fixed


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a run's quantized network as ONNX (quantized.onnx), as a torch.export program (quantized.pt2) or for
    ExecuTorch (quantized.pte), try the file on real images beside PyTorch, and keep the comparison (export.json)."""

    format: Format | None = None
    """What to write: ONNX for ONNX Runtime and others, a program that torch.export.load reads (for executorch, in
    PT2E's operators), or one for ExecuTorch with XNNPACK's kernels. Default: pte for executorch, else ONNX."""
    target: TargetName | None = None
    """The runtime that the file is for: laid out as its integer kernels want it, and checked against its rules; exit
    code 1, and what would keep them, where it breaks some. Default: the run's --target, or else an ONNX file as small
    as its bits for ONNX Runtime and OpenVINO."""
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
    target: TargetName | None = options.target
    if target is None:
        of_run = _options_of_run(folder).get("target")
        target = of_run if options.format is None or options.format in formats_for(of_run) else None
    path = folder / f"quantized.{options.format or formats_for(target)[0]}"
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
) -> tuple["Report", Sequence[Broken]]:
    """Write a quantized network, which returns logits, as ONNX, as a program of torch.export or for ExecuTorch, by the
    path's suffix; and try the file beside it, and against its target's rules.

    Args:
        images: to compare on, None for random ones, and what they are called.
        opset: of ONNX's operators.
        published: whether the weights are those that the network's name stands for.
        target: the runtime that it is for.

    Raises:
        ValueError, OSError, ImportError: as :func:`export`.
    """
    suffix = path.suffix.removeprefix(".")
    if target is None and suffix == "pte":
        target = "executorch"
    if suffix not in formats_for(target):
        known = " or ".join(f".{known}" for known in formats_for(target))
        asked = "" if target is None else f"--target {target}: "
        raise ValueError(f"{asked}{path}: expected a file that ends in {known}")
    _import_what_writes(suffix, opset)
    widths = [bits.activation for bits in description.bits.values() if bits.activation < FULL_PRECISION]
    if suffix == "pte" and max(widths, default=0) > 8:
        raise ValueError(f"{path}: XNNPACK takes activations of 8 bits, found {max(widths)}; as .pt2, others take them")
    with console.status("exporting"):
        noise = torch.randn(_TRACED, description.space.channels, *description.space.size)
        integers = integer_network(network, noise)
        aside = path.with_name(f"{path.stem}.part{path.suffix}")
        if suffix == "onnx":
            from zerosum.players.export.onnx_file import save_onnx

            layout = SMALL if target is None else TARGETS[target].layout
            save_onnx(trace(integers, noise), network, description, opset, aside, published, layout)
            broken = _rules_of_onnx(aside, target)
        else:
            broken = _write_program(integers, noise, aside, target)
    _put(aside, path)

    from zerosum.players.export import trial

    console.print(f"{path}; compared on {images[1]}", soft_wrap=True, highlight=False, markup=False)
    if suffix == "onnx" and target is None and (advice := _advice(description.scheme)):
        console.print(advice, soft_wrap=True, highlight=False, markup=False)
    report = trial.compare(path, network, float_twin(integers), images[0], opset)
    console.print(report.draw())
    if target is not None:
        _tell_rules(broken, target, max(bits.weight for bits in description.bits.values()), console)
    return report, broken


def _rules_of_onnx(path: Path, target: TargetName | None) -> Sequence[Broken]:
    from zerosum.players.export.rules import broken_rules

    return [] if target is None else broken_rules(path, target)


def _write_program(integers: nn.Module, noise: Tensor, path: Path, target: TargetName | None) -> Sequence[Broken]:
    """A program of torch.export, as it is or lowered; which rules of its target it breaks."""
    from zerosum.players.export.pt2_file import save_pt2

    if target is None:
        save_pt2(trace(integers, noise), path)
        return []
    from zerosum.players.export.pt2e import broken_rules, pt2e_program

    program = pt2e_program(integers, noise)
    if path.suffix == ".pt2":
        save_pt2(program, path)
    else:
        from zerosum.players.export.pte_file import save_pte

        save_pte(program, path)
    return broken_rules(program)


def _tell_rules(broken: Sequence[Broken], target: TargetName, widest: int, console: Console) -> None:
    """Say which rules of a target a file breaks."""
    about = TARGETS[target]
    if not broken:
        console.print(f"keeps the rules of {about.title} for integer kernels", style="green")
        return
    lines = [f"breaks rules of {about.title} for integer kernels; what it {about.otherwise}:"]
    lines += [*(f"  {rule}" for rule in broken), f"a run with --target {target} ({about.options(widest)}) keeps them"]
    console.print("\n".join(lines), style="red", soft_wrap=True, highlight=False, markup=False)


def _put(aside: Path, path: Path) -> None:
    """In its place, once it is on the disk."""
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)


def _import_what_writes(suffix: str, opset: int) -> None:
    """Before any work.

    Raises:
        ImportError: a package of an extra is missing.
        ValueError: an opset that the installed onnx does not know.
    """
    extra = {"onnx": "export", "pte": "executorch"}.get(suffix)
    try:
        if suffix == "pte":
            from zerosum.players.export import pte_file  # noqa: F401
        elif suffix == "onnx":
            import onnxruntime  # noqa: F401 (the comparison needs it)

            from zerosum.players.export.onnx_file import LEAST_OPSET, NEWEST_OPSET

            if not LEAST_OPSET <= opset <= NEWEST_OPSET:
                newest = f"{NEWEST_OPSET}, the newest that the installed onnx knows"
                raise ValueError(f"--opset {opset}: expected {LEAST_OPSET} to {newest}")
    except ImportError as error:
        raise ImportError(f"a .{suffix} file needs the package {error.name}; pip install 'zerosum[{extra}]'") from error


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
