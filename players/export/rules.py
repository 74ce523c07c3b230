"""Whether a runtime computes an ONNX file with integers: its rules, read off the file itself.

ONNX Runtime (QLinearConv, QGemm) and OpenVINO (low precision transformations) want weights in int8 with zero point 0
and inputs of 8 bits; x86 CPUs without VNNI add pairs of products in 16 bits. TensorRT ("Working with quantized types";
NVIDIA/TensorRT#2774, onnx-tensorrt#850) wants everything in int8 with zero point 0, one scale a tensor, or of weights
one for each output channel, DequantizeLinear right behind QuantizeLinear, and biases in float32.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from zerosum.players.export.onnx_weights import is_depthwise, overflows
from zerosum.players.export.targets import Broken, TargetName

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_THROUGH = ("Pad", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")


def broken_rules(path: Path, target: TargetName) -> list[Broken]:
    """What keeps a runtime from computing layers of the file with integers, in the order of the file."""
    graph = ir.load(path).graph
    found: dict[Broken, None] = {}
    for node in graph:
        if node.op_type == "DequantizeLinear":
            stored = node.inputs[0].is_initializer()
            rules = _of_stored(node, target) if stored else _of_activation(node, target)
            found |= dict.fromkeys(rules)
        elif node.op_type in _LAYERS and (broken := _of_layer(node)) is not None:
            found[broken] = None
    return [*found]


def _of_layer(layer: ir.Node) -> Broken | None:
    """That what enters it is quantized, and its weight."""
    if len(layer.inputs) < 2 or _dequantizing(layer.inputs[1]) is None:
        return None  # a product of two activations, say, or a layer in full precision
    if _dequantizing(layer.inputs[0]) is None:
        return Broken(_name(layer), "what enters it is not quantized", "bits such as w8a8")
    return None


def _of_stored(node: ir.Node, target: TargetName) -> Iterator[Broken]:
    """Weights and biases, behind their ``node``."""
    levels = node.inputs[0].const_value.numpy()
    users = [use.node for use in node.outputs[0].uses()]
    where = ", ".join(dict.fromkeys(map(_name, users)))
    if levels.dtype == np.int32:
        if target == "tensorrt":
            yield Broken(where, "its bias is in int32, expected float32", f"--target {target}")
        return
    zero_point = node.inputs[2].const_value.numpy().astype(np.int32)
    is_signed = levels.dtype == np.int8
    if zero_point.any() and (is_signed or (zero_point != 128).any()):
        yield Broken(where, "the zero point of its weight is not 0", "--weight-grid symmetric")
    elif not is_signed:
        option = "--weight-range pairwise" if levels.dtype == np.uint8 else f"--target {target}"
        yield Broken(where, f"its weight is in {levels.dtype}, expected int8", option)
    elif target != "tensorrt" and overflows(levels) and not is_depthwise(levels, users):
        yield Broken(where, "sums of its weights overflow on x86 CPUs without VNNI", "--weight-range pairwise")
    if target == "tensorrt" and zero_point.size > 1:
        axis = node.attributes.get_int("axis", 1) % levels.ndim
        if any(axis != _output_axis(user, levels.ndim) for user in users):
            yield Broken(where, "its scales are not those of output channels", "--weight-granularity per-tensor")


def _output_axis(layer: ir.Node, ndim: int) -> int:
    if layer.op_type == "ConvTranspose":
        return 1
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and layer.attributes.get_int("transB", 0)):
        return 0
    return ndim - 1


def _of_activation(node: ir.Node, target: TargetName) -> Iterator[Broken]:
    source = node.inputs[0].producer()
    entered = ", ".join(dict.fromkeys(map(_name, _behind(node))))
    where = f"what enters {entered}" if entered else "logits"
    if node.inputs[2].const_value.numpy().dtype.itemsize > 1:
        yield Broken(where, "it has more than 8 bits", "bits such as w8a8")
        return
    if source is not None and source.op_type != "QuantizeLinear":
        yield Broken(where, "it has fewer than 8 bits", "bits such as w4a8")
    if target != "tensorrt":
        return
    zero_point = node.inputs[2].const_value.numpy()
    if zero_point.dtype != np.int8:
        yield Broken(where, f"it is in {zero_point.dtype}, expected int8", f"--target {target}")
    elif zero_point.any():
        yield Broken(where, "its zero point is not 0", "--activation-grid symmetric")


def _behind(node: ir.Node) -> list[ir.Node]:
    """Who takes its output, behind what only moves it."""
    found = []
    for use in node.outputs[0].uses():
        found += _behind(use.node) if use.node.op_type in _THROUGH else [use.node]
    return found


def _dequantizing(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _THROUGH:
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _name(node: ir.Node) -> str:
    """Of a layer, as the network has it; of another operation, what it is."""
    weight = _dequantizing(node.inputs[1]) if node.op_type in _LAYERS and len(node.inputs) > 1 else None
    if weight is None or not weight.inputs[0].is_initializer():
        return f"the {node.op_type} {node.name}"
    return weight.inputs[0].name.rstrip("'").removesuffix(".weight")
