"""What runtimes make of exported files: ``python -m benchmarks.targets RUN_DIR ...`` exports each finished run for its
target (``--target`` of the run) and prints a table: agreement with PyTorch, operations that compute with integers, and
speed beside the float32 file of the same network, turn about, in the runtime itself, where that can be installed here.

TensorRT's files are computed by OpenVINO. The images are the run's own, or random ones.
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openvino
import torch
from rich.console import Console
from torch import Tensor

from zerosum.players.backbones import input_space
from zerosum.players.examination import percent
from zerosum.players.export.command import TABLE, images_to_compare
from zerosum.players.export.onnx_file import load_onnx
from zerosum.players.export.program import float_twin, integer_network
from zerosum.players.export.pte_file import load_pte
from zerosum.players.export.trial import median_seconds, save_plain
from zerosum.players.storage import QUANTIZED, load_described
from zerosum.runs import export

_LAYERS = ("Conv", "Gemm", "MatMul", "Fully")
Runs = Callable[[Tensor], Tensor]


def load_openvino(path: Path) -> tuple[Runs, dict[str, int]]:
    """As :func:`zerosum.players.export.onnx_file.load_onnx`, on as many threads; kernels are named with their type."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)
    infos = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]
    kernels = Counter(f"{kind} {precision}" for kind, precision in kinds)
    return lambda images: torch.from_numpy(compiled([images.numpy()])[0].copy()), dict(kernels.most_common())


_RUNTIMES = {
    None: (load_onnx, "ONNX Runtime"),
    "onnxruntime": (load_onnx, "ONNX Runtime"),
    "executorch": (load_pte, "ExecuTorch"),
}


def row(folder: Path) -> str:
    """Of the table, for one run."""
    if export.main([str(folder)]) not in (0, 1):
        raise SystemExit(f"{folder}: not exported")
    about = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    network, description = load_described(folder / QUANTIZED)
    space = input_space(network)
    load, where = _RUNTIMES.get(about["target"], (load_openvino, "OpenVINO"))
    file = folder / about["file"]
    noise = torch.randn(2, space.channels, *space.size)
    with tempfile.TemporaryDirectory() as temporary:
        twin, plain = float_twin(integer_network(network, noise)), Path(temporary) / f"plain{file.suffix}"
        save_plain(twin, noise, 21, plain)
        runs, kernels = load(file)
        seconds = median_seconds((load(plain)[0], runs), noise[:1])
        size = file.stat().st_size / plain.stat().st_size
    loader, _ = images_to_compare(folder, None, network)
    batches = [(torch.randn(64, space.channels, *space.size), None)] if loader is None else loader
    same = []
    with torch.no_grad():
        for images, _ in batches:
            found = torch.cat([runs(image[None]) for image in images])
            same.append(found.argmax(1) == network(images).argmax(1))
    cells = [
        *(about["target"] or "none", next(iter(set(description.bits.values()))), where),
        f"{percent(torch.cat(same)):.2f} of {len(torch.cat(same)):,}",
        ", ".join(f"{count} {name}" for name, count in kernels.items() if _is_of_layers(name)),
        f"{len(about['broken_rules'])}",
        f"{size:.3f}",
        *(f"{1e3 * each:.2f}" for each in seconds),
        f"{seconds[0] / seconds[1]:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _is_of_layers(kernel: str) -> bool:
    return any(layer in kernel for layer in _LAYERS) and "Convert" not in kernel


_HEADER = (
    *("target", "bits", "computed by", "agreement, %", "kernels", "rules broken", "of float32's size"),
    *("ms, float32", "ms, quantized", "times as fast"),
)


def main(folders: Sequence[str]) -> None:
    """Print the table."""
    torch.manual_seed(0)
    console = Console(soft_wrap=True)
    rows = [row(Path(folder)) for folder in folders]
    console.print(f"| {' | '.join(_HEADER)} |", f"|{'---|' * len(_HEADER)}", *rows, sep="\n", markup=False)


if __name__ == "__main__":
    main(sys.argv[1:])
