"""A program in PT2E's operators as a file for ExecuTorch, with XNNPACK's kernels; and in its runtime."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph

from zerosum.players.export.quiet import quiet

with quiet():
    import executorch.kernels.quantized  # noqa: F401 (kernels for what is left outside of XNNPACK)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools import Inspector
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

_NUMBER = re.compile(r" #\d+$")
_AROUND = ("DELEGATE_CALL", "OPERATOR_CALL", "Method::execute")


def save_pte(program: ExportedProgram, path: Path) -> None:
    """Lower the program (:func:`zerosum.players.export.pt2e.pt2e_program`) to XNNPACK, and write it.

    Raises:
        ValueError: ExecuTorch does not take it, or has no kernel for what is left outside of XNNPACK; the message says
            what it met.
        OSError: it cannot be written.
    """
    with quiet():
        try:
            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),  # which knows no quantized_decomposed
            )
            made = lowered.to_executorch()
        except Exception as error:  # of many types, by what the network does
            raise ValueError(f"ExecuTorch does not take the network: {type(error).__name__}: {error}") from error
    if missing := _without_kernel(made.exported_program().graph):
        raise ValueError(f"ExecuTorch has no kernel for {', '.join(missing)}")
    path.write_bytes(made.buffer)


def _without_kernel(graph: Graph) -> list[str]:
    known = Runtime.get().operator_registry.operator_names
    called: Any = [node.target for node in graph.nodes if node.op == "call_function"]
    names = (target.name() for target in called if hasattr(target, "_schema"))
    return sorted({name for name in names if name not in known})


def load_pte(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, int]]:
    """The file in ExecuTorch, with as many threads as PyTorch, an image at a time; and how many kernels of each kind it
    runs as, from its own profile: of XNNPACK's, those with QC8 or QS8 compute with integers."""
    with quiet():
        portable_lib._unsafe_reset_threadpool(torch.get_num_threads())
        program = Runtime.get().load_program(path)
        method: Any = program.load_method("forward")
        shape = method.metadata.input_tensor_meta(0).sizes()

    def run(images: Tensor) -> Tensor:
        return torch.cat([method.execute([image[None].contiguous()])[0].clone() for image in images])

    run.program = program  # type: ignore[attr-defined] # or the method would outlive it
    return run, _profile(path, torch.zeros(shape))


def _profile(path: Path, image: Tensor) -> dict[str, int]:
    with quiet(), tempfile.TemporaryDirectory() as folder:
        program = Runtime.get().load_program(path, enable_etdump=True)
        program.load_method("forward").execute([image])
        events = Path(folder) / "events.etdp"
        program.write_etdump_result_to_file(str(events), str(events.with_suffix(".bin")))
        blocks = Inspector(etdump_path=str(events)).event_blocks
    names = [_NUMBER.sub("", event.name) for block in blocks if block.name == "Execute" for event in block.events]
    return dict(Counter(name for name in names if name not in _AROUND).most_common())
