"""A program of integers in PT2E's operators (``quantized_decomposed``), as ExecuTorch and other compilers of PyTorch's
exported programs take them, in the form that their integer kernels need.

XNNPACK's partitioner (executorch.backends.xnnpack.partition, 1.5) takes a layer to its integer kernels when an int8
tensor enters it, its weight is int8 with zero point 0, and what leaves it, through one relu at most, is rounded once,
for all who take it. Of a layer that it does not take, it still drops the DequantizeLinear in front, and the answers are
wrong: so such a layer's weight is hidden from it behind a view.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
import torch.ao.quantization.fx._decomposed  # which registers the operators
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph
from torch.fx import Node as FxNode
from torch.nn.modules.conv import _ConvTransposeNd

from zerosum.players.export.program import LAYERS, FixedRounding, trace
from zerosum.players.export.signed import around_0, around_middle
from zerosum.players.export.targets import Broken
from zerosum.players.quantization import quantizable_layers
from zerosum.players.quantization.integers import Integers, IntegerWeight, integers_of, keep_levels

_ATEN, _OPERATORS = torch.ops.aten, torch.ops.quantized_decomposed
_QUANTIZE, _DEQUANTIZE = _OPERATORS.quantize_per_tensor.default, _OPERATORS.dequantize_per_tensor.default
_WEIGHT = _OPERATORS.dequantize_per_channel.default

_WITH_KERNELS = {_ATEN.conv2d.default, _ATEN.linear.default}
_ACTIVATIONS = {_ATEN.relu.default, _ATEN.hardtanh.default, _ATEN.relu6.default}
_MOVES = {  # what puts values elsewhere, or takes the largest: rounding before it is rounding after it
    *(_ATEN.max_pool2d.default, _ATEN.slice.Tensor, _ATEN.pad.default, _ATEN.constant_pad_nd.default),
    *(_ATEN.flatten.using_ints, _ATEN.view.default, _ATEN.reshape.default, _ATEN.permute.default),
    *(_ATEN.transpose.int, _ATEN.squeeze.dim, _ATEN.squeeze.dims, _ATEN.unsqueeze.default),
    *(_ATEN.dropout.default, _ATEN.clone.default, _ATEN.contiguous.default),
}
Node: TypeAlias = Any  # of a graph, whose arguments can be anything
_Grid: TypeAlias = tuple[Any, ...]  # scale, zero point, lowest and highest level, dtype


def pt2e_program(integers: nn.Module, image: Tensor) -> ExportedProgram:
    """The program of an :func:`zerosum.players.export.program.integer_network`, for one image at a time.

    It computes the same, but where a tensor is rounded to two grids: there it is rounded to the wider one first, as a
    kernel gives it.

    Raises:
        ValueError: the network cannot be traced; the message says what torch.export met.
    """
    network = copy.deepcopy(integers)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, FixedRounding):
                setattr(module, name, _SignedRounding(child))
    layers: Any = quantizable_layers(network).values()
    for layer in layers:
        if (kept := integers_of(layer)) is not None:
            _keep_signed(layer, kept)
    settled: Any = trace(network, image[:1]).run_decompositions({}).module()
    _settle(settled)
    settled.recompile()
    return trace(settled, image[:1])


class _SignedRounding(nn.Module):
    """Rounding to int8 (or int16) and back; fewer bits are cut before, as only whole types have kernels."""

    def __init__(self, rounding: FixedRounding) -> None:
        super().__init__()
        scale, zero_point, bits = rounding.scale, rounding.zero_point, rounding.bits
        width = 8 if bits <= 8 else 16
        self.ends = None
        if bits < width:
            self.ends = -zero_point * scale, (2**bits - 1 - zero_point) * scale
        half = 2 ** (width - 1)
        origin = zero_point - half if bits == width else 0
        self.grid = (scale, origin, -half, half - 1, torch.int8 if width == 8 else torch.int16)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.ends is None else x.clamp(*self.ends)
        return _DEQUANTIZE(_QUANTIZE(x, *self.grid), *self.grid)


class _SignedWeight(IntegerWeight):
    axis: int

    def values(self, levels: Tensor) -> Tensor:
        values: Tensor = _WEIGHT(levels, self.scale, self.zero_point, self.axis, -128, 127, torch.int8)
        return values


def _keep_signed(layer: Any, integers: Integers) -> None:
    bits, axis = layer.parametrizations.weight[0].bits, 1 if isinstance(layer, _ConvTransposeNd) else 0
    levels, scale, zero_point = (tensor.numpy() for tensor in integers)
    levels, zero_point, scale = around_0(*around_middle(levels, zero_point, bits), scale, bits)
    scales, zero_points = (
        torch.from_numpy(numbers).flatten().expand(levels.shape[axis]).contiguous() for numbers in (scale, zero_point)
    )
    quantizer = _SignedWeight(layer, Integers(torch.from_numpy(levels), scales, zero_points.long()), bits)
    quantizer.axis = axis
    keep_levels(layer, torch.from_numpy(levels.astype("int8")), quantizer)


def _settle(module: Any) -> None:
    """Round each tensor that a layer or an addition makes once, at once, and let all take it from there."""
    graph, tensors = module.graph, dict(module.named_parameters()) | dict(module.named_buffers())
    _round_what_is_moved(graph)
    _round_once(graph)
    for node in list(graph.nodes):
        if _is(node, _DEQUANTIZE):
            for user in list(node.users)[1:]:  # each has its own: marks that partitioners put on one are for its user
                with graph.inserting_before(user):
                    user.replace_input_with(node, graph.call_function(_DEQUANTIZE, node.args))
    for node in list(graph.nodes):
        zero_points = _zero_points(node, lambda source: tensors[str(source.target)])
        if zero_points is not None and any(_broken(node, "", zero_points)):
            weight, shape = node.args[1], list(node.args[1].meta["val"].shape)
            with graph.inserting_before(node):
                node.replace_input_with(weight, graph.call_function(_ATEN.view.default, (weight, shape)))
    graph.eliminate_dead_code()
    graph.lint()


def _round_what_is_moved(graph: Graph) -> None:
    """On both sides of what only moves values, which then moves integers."""
    for node in list(graph.nodes):
        if node.target in _MOVES and _is(node.args[0], _DEQUANTIZE) and not _taken_on(node, node.args[0].args[1:]):
            _insert_rounding(graph, node, node.args[0].args[1:])
    waiting = [node for node in graph.nodes if _is(node, _QUANTIZE)]
    while waiting:
        rounding = waiting.pop()
        move, grid = rounding.args[0], rounding.args[1:]
        if move.target in _MOVES and _taken_on(move, grid):
            source = move.args[0]
            if not (_is(source, _DEQUANTIZE) and source.args[1:] == grid):
                waiting.append(_insert_rounding(graph, source, grid, [move]))


def _round_once(graph: Graph) -> None:
    for node in list(graph.nodes):
        if node.target in LAYERS or node.target == _ATEN.add.Tensor:
            end = _end(node)
            grids = {user.args[1:] for user in end.users if _is(user, _QUANTIZE) and user.args[-1] == torch.int8}
            if len(grids) > 1 and all(_is(user, _QUANTIZE) and user.args[1:] in grids for user in end.users):
                _insert_rounding(graph, end, max(grids, key=lambda grid: grid[0]))
    places = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        known = {node.args[1:]: node.args[0]} if _is(node, _DEQUANTIZE) else {}
        for user in sorted(node.users, key=places.__getitem__):
            if _is(user, _QUANTIZE):
                first = known.setdefault(user.args[1:], user)
                if first is not user:
                    user.replace_all_uses_with(first)
                    graph.erase_node(user)


def _insert_rounding(graph: Graph, node: Node, grid: _Grid, users: list[Node] | None = None) -> Node:
    """Round a node's output for those who take it; the QuantizeLinear."""
    users = list(node.users) if users is None else users
    with graph.inserting_after(node):
        rounding = graph.call_function(_QUANTIZE, (node, *grid))
    with graph.inserting_after(rounding):
        back = graph.call_function(_DEQUANTIZE, (rounding, *grid))
    for user in users:
        user.replace_input_with(node, back)
    return rounding


def broken_rules(program: ExportedProgram) -> list[Broken]:
    """What keeps XNNPACK from computing layers of a PT2E program with integers, in its order."""
    names = {spec.arg.name: spec.target or "" for spec in program.graph_signature.input_specs}
    found: list[Broken] = []
    for node in program.graph.nodes:
        zero_points = _zero_points(node, lambda source: program.state_dict[names[source.name]])
        if zero_points is not None and (weight := _weight(node)) is not None:
            name = names[weight.args[0].name].removesuffix(".parametrizations.weight.original")
            found += _broken(node, name, zero_points)
    return found


def _zero_points(node: Node, tensor_of: Callable[[Node], Tensor]) -> Tensor | None:
    """Of a layer's weight, where it is quantized."""
    weight = _weight(node) if node.target in LAYERS else None
    return None if weight is None else tensor_of(weight.args[2])


def _broken(layer: Node, name: str, zero_points: Tensor) -> Iterator[Broken]:
    """Rules that do not hold for a layer whose weight is quantized."""
    inputs, users = layer.args[0], list(_end(layer).users)
    if layer.target not in _WITH_KERNELS:
        yield Broken(name, f"there is no such kernel for {layer.target.name()}", "--target onnxruntime")
    if zero_points.any():
        yield Broken(name, "the zero point of its weight is not 0", "--weight-grid symmetric")
    if not _is(inputs, _DEQUANTIZE):
        yield Broken(name, "what enters it is not quantized", "bits such as w8a8")
    elif inputs.args[-1] != torch.int8 or _is_cut(inputs):
        yield Broken(name, "what enters it has not 8 bits", "bits such as w4a8")
    if len(users) != 1 or not _is(users[0], _QUANTIZE):
        last = all(user.op == "output" for user in users)
        option = "--logits quantized" if last else "--sums quantized"
        yield Broken(name, "what leaves it is not rounded at once, for all who take it", option)


def _is_cut(back: Node) -> bool:
    source = back.args[0]
    return _is(source, _QUANTIZE) and _is(source.args[0], _ATEN.clamp.default)


def _weight(layer: Node) -> Node | None:
    """Its DequantizeLinear."""
    node: Any = layer.args[1]
    while isinstance(node, FxNode) and node.target == _ATEN.view.default:
        node = node.args[0]
    return node if _is(node, _WEIGHT) else None


def _end(node: Node) -> Node:
    """What leaves a kernel: with the activation function that it computes too."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in _ACTIVATIONS else node


def _taken_on(node: Node, grid: _Grid) -> bool:
    return all(_is(user, _QUANTIZE) and user.args[1:] == grid for user in node.users)


def _is(node: Any, target: Any) -> bool:
    return isinstance(node, FxNode) and node.target == target
