"""A quantized network as an ONNX file, and in ONNX Runtime."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from zerosum.players.architectures import Architecture
from zerosum.players.export.onnx_graph import onnx_model
from zerosum.players.export.program import trace
from zerosum.players.export.targets import SMALL, Layout
from zerosum.players.lazy import timm
from zerosum.players.quantization import quantizable_layers
from zerosum.players.quantization.precision import FULL_PRECISION
from zerosum.players.storage import Description

_WIDE_SINCE = 21  # uint16
LEAST_OPSET, NEWEST_OPSET = 18, onnx.defs.onnx_opset_version()


def save_onnx(
    program: ExportedProgram,
    network: nn.Module,
    description: Description,
    opset: int,
    path: Path,
    published: bool = True,
    layout: Layout = SMALL,
) -> None:
    """Write the program of an integer network (:mod:`zerosum.players.export.program`) as an ONNX model that says what
    it takes.

    Its input is ``images`` (N, channels, height, width), float32 in normalised input space, its output ``logits``
    (N, classes). Weights are int8 initializers, or packed int4 where they have 4 bits or fewer and the opset has them;
    activations pass uint8, cut to their own range where that is smaller. What reads pictures finds in the metadata
    ``mean``, ``std``, ``size`` (height and width), ``resize`` (pixels of the shorter side before the cut), ``crop``,
    ``interpolation`` and, where they are known, ``classes``, one a line (of ImageNet, WordNet ids).

    Args:
        published: whether the weights are those that the backbone's name stands for; with others, nothing tells which
            classes they know.
        layout: how integers are held.

    Raises:
        ValueError: an operator of the network has no counterpart in ONNX; the message names it. Or activations have
            more than 8 bits, for which ``opset`` is too old.
    """
    widest = max((bits.activation for bits in description.bits.values() if bits.activation < FULL_PRECISION), default=0)
    if widest > 8 and opset < _WIDE_SINCE:
        raise ValueError(f"--opset {opset}: activations of {widest} bits need {_WIDE_SINCE} or newer")
    layers = {layer: description.bits[name] for name, layer in quantizable_layers(network).items()}
    names = network.named_modules(remove_duplicate=False)  # a layer in two places has two names; one is in the program
    model = onnx_model(program, {name: layers[module] for name, module in names if module in layers}, opset, layout)
    model.metadata_props.update(describe_input(network, description, published))
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)


def save_float_onnx(network: nn.Module, images: Tensor, opset: int, path: Path) -> None:
    """Write an ordinary network as an ONNX model, the same way."""
    ir.save(onnx_model(trace(network, images), {}, opset), path)


def load_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, int]]:
    """The model in ONNX Runtime on the CPU, with as many threads as PyTorch; and how many kernels of each kind it
    runs as: QLinear… and QGemm compute with integers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait busily take the cores from whatever runs next: another file, in a comparison turn about.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if ir.load(path).metadata_props.get("kernels") == "float32":
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # unpack weights now, not in each run
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        kernels = Counter(node.op_type for node in ir.load(optimized).graph)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])

    return run, dict(kernels.most_common())


def describe_input(network: nn.Module, description: Description, published: bool = True) -> dict[str, str]:
    """The metadata of :func:`save_onnx`."""
    config, space = timm.data.resolve_model_data_config(network), description.space
    found = {
        "backbone": description.architecture.name,
        "scheme": str(description.scheme),
        "bits": " ".join(f"{name}={width}" for name, width in description.bits.items()),
        "mean": " ".join(map(str, space.mean)),
        "std": " ".join(map(str, space.std)),
        "size": " ".join(map(str, space.size)),
        "resize": str(math.floor(min(space.size) / config["crop_pct"])),
        "crop": config["crop_mode"],
        "interpolation": config["interpolation"],
    }
    names = description.class_names or (_imagenet(network, description.architecture) if published else [])
    return found | ({"classes": "\n".join(names)} if names else {})


def _imagenet(network: nn.Module, architecture: Architecture) -> list[str]:
    """ImageNet's classes, of a network that timm knows by a name whose own weights know them, as their tag says."""
    ids: list[str] = timm.data.ImageNetInfo().label_names()
    by_name = architecture.kind == "timm" and "pretrained_cfg" not in architecture.args
    config = getattr(network, "pretrained_cfg", None) or {}
    its_own = config.get("num_classes") == architecture.args.get("num_classes") == len(ids)
    its_own = its_own and not config.get("label_names")  # or they would be those
    return ids if by_name and its_own and "in1k" in (config.get("tag") or "") else []
