"""A program of integers for ``torch.export.load``."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

_WHENCE = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


def save_pt2(program: ExportedProgram, path: Path) -> None:
    """Write the program as small as its bits: levels of four bits are bytes in it, of which half is left when the file
    is deflated. Operators of our own become PyTorch's, so that PyTorch alone loads it. Of where in whose sources an
    operator came from, nothing is kept.

    Raises:
        OSError: it cannot be written.
    """
    operators = torch.ops.zerosum
    plain = {operators.dequantize.default: _dequantize, operators.round_to_grid.default: _round_to_grid}
    if any(node.target in plain for node in program.graph.nodes):
        program = program.run_decompositions(plain)
    for node in program.graph.nodes:
        for name in _WHENCE:
            node.meta.pop(name, None)
    inputs, named = program.example_inputs or ((), {})
    program.example_inputs = (
        tuple(torch.zeros_like(x) for x in inputs),
        named,
    )  # as good as noise, and deflate to nothing
    whole = path.with_name(f"{path.stem}.whole{path.suffix}")
    try:
        torch.export.save(program, whole)
        with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated:
            for record in stored.infolist():
                deflated.writestr(record.filename, stored.read(record))
    finally:
        whole.unlink(missing_ok=True)


def _dequantize(levels: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return scale * (levels.float() - zero_point.float())


def _round_to_grid(x: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    return (x * (1 / scale)).round().clamp(-zero_point, 2**bits - 1 - zero_point) * scale
