"""A program of integers as an ONNX graph: QuantizeLinear and DequantizeLinear around every quantized layer."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from onnxscript import opset18 as op
from onnxscript import optimizer
from torch.export import ExportedProgram

from zerosum.players.quantization import Bits

_FOUR_BITS_SINCE = 21  # opset
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def onnx_model(program: ExportedProgram, bits: Mapping[str, Bits], opset: int) -> ir.Model:
    """The model of a program with an input ``images`` and an output ``logits``.

    Its metadata's ``kernels`` is ``integer`` where integer kernels can run some layers, and run them right; ``float32``
    where a runtime does best to unpack the weights at once (ONNX Runtime: ``session.disable_quant_qdq``).

    Args:
        bits: of each layer that keeps integers, by its name.

    Raises:
        ValueError: an operator of the network has no counterpart in ONNX; the message names it.
    """
    with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        return _make(program, bits, opset)


def _make(program: ExportedProgram, bits: Mapping[str, Bits], opset: int) -> ir.Model:
    model = _translate(program, opset)
    graph = model.graph
    graph.inputs[0].name, graph.outputs[0].name = "images", "logits"
    for tidy in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),  # so that what is quantized for two layers alike is quantized once
        common.CommonSubexpressionEliminationPass(),
    ):
        tidy(model)
    stored = [
        _Stored(node, bits, opset)
        for node in graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer()
    ]
    for weight in stored:
        weight.place()
    optimizer.optimize(model)
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    if stored:
        model.metadata_props["kernels"] = "integer" if any(weight.for_kernels for weight in stored) else "float32"
    return model


def _translate(program: ExportedProgram, opset: int) -> ir.Model:
    operators = torch.ops.zerosum
    table: Any = {operators.dequantize.default: _dequantize, operators.round_to_grid.default: _round_to_grid}
    try:
        made: Any = torch.onnx.export(
            program, dynamo=True, opset_version=opset, optimize=False, verbose=False, custom_translation_table=table
        )
    except Exception as error:  # of types that torch keeps private
        raise ValueError(f"the network cannot be written as ONNX: {_cause(error)}") from error
    return made.model


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """What these say is for those who write exporters."""
    talkers = [logging.getLogger(name) for name in loggers]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


def _cause(error: BaseException) -> str:
    """The operator, where one is named, and the first line of the error that the others are about."""
    operator = ""
    while error.__cause__ is not None:
        error = error.__cause__
        named = re.search(r"target=(torch\.ops\.[\w.]+)", str(error))
        operator = f"{named[1]}: " if named else operator
    return operator + (str(error).strip().splitlines() or [type(error).__name__])[0]


# Of arguments without a type, torch.onnx knows that they are tensors.
def _dequantize(levels, scale, zero_point):  # type: ignore[no-untyped-def]
    axis = next((axis for axis, size in enumerate(scale.shape) if size != 1), 0)
    return op.DequantizeLinear(levels, scale, zero_point, axis=axis)


def _round_to_grid(x, scale: float, zero_point: int, bits: int):  # type: ignore[no-untyped-def]
    step, zero = op.Constant(value=ir.tensor(np.float32(scale))), op.Constant(value=ir.tensor(np.uint8(zero_point)))
    levels = op.QuantizeLinear(x, step, zero)
    if bits < 8:
        lowest, highest = (op.Constant(value=ir.tensor(np.uint8(end))) for end in (0, 2**bits - 1))
        levels = op.Clip(levels, lowest, highest)
    return op.DequantizeLinear(levels, step, zero)


class _Stored:
    """A weight behind its DequantizeLinear ``node``, and what of its layer depends on how it is stored.

    Levels are centred on zero, as kernels want weights, in the smallest type that holds them. Where ONNX Runtime's
    kernels for int8 would overflow (:func:`zerosum.players.quantization.ranges.pairwise`), 8 bits go into uint8, for
    which it has exact ones.
    """

    def __init__(self, node: ir.Node, bits: Mapping[str, Bits], opset: int) -> None:
        self.node, self.graph = node, node.graph
        self.layer = node.inputs[0].name.removesuffix(".parametrizations.weight.original").removesuffix(".weight")
        self.bits = bits[self.layer]
        levels, scale, zero_point = (value.const_value.numpy() for value in node.inputs)
        middle = 2 ** (self.bits.weight - 1)
        self.levels, self.zero_point = (values.astype(np.int16) - middle for values in (levels, zero_point.ravel()))
        self.scale = scale.ravel()
        fits = self._is_depthwise() or not _overflows(self.levels)
        self.for_kernels = self.bits.weight > 4 and not self.zero_point.any() and fits
        if self.bits.weight <= 4 and opset >= _FOUR_BITS_SINCE:
            self.dtype, self.origin = ml_dtypes.int4, 0
        elif self.bits.weight < 8 or self.for_kernels:
            self.dtype, self.origin = np.int8, 0
        else:
            self.dtype, self.origin = np.uint8, 128

    def _is_depthwise(self) -> bool:
        """Those convolutions have kernels of another kind, that do not overflow."""
        users = [use.node for use in self.node.outputs[0].uses()]
        return self.levels.shape[1] == 1 and all(user.attributes.get_int("group", 1) > 1 for user in users)

    def place(self) -> None:
        """Store the weight, and its layer's bias as it suits."""
        for use in list(self.node.outputs[0].uses()):
            if use.node.op_type in (*_CONVOLUTIONS, "Gemm") and len(use.node.inputs) > 2 and use.node.inputs[2]:
                self._place_bias(use.node)
            elif use.node.op_type == "Transpose" and len(self.node.outputs[0].uses()) == 1:
                self._transpose(use.node)
        shape = () if self.scale.size == 1 else (-1,)
        levels, zero_point = ((values + self.origin).astype(self.dtype) for values in (self.levels, self.zero_point))
        stored = {"weight": levels, "scale": self.scale.reshape(shape), "zero_point": zero_point.reshape(shape)}
        for position, (name, array) in enumerate(stored.items()):
            self.node.replace_input_with(position, self._initializer(name, array))

    def _initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        """One for all places where the layer runs; layers of equal weights share them, but not their biases."""
        full_name = f"{self.layer}.{name}"
        while (known := self.graph.initializers.get(full_name)) is not None:
            if np.array_equal(known.const_value.numpy(), array):
                return known
            full_name += "'"
        value = ir.Value(name=full_name, const_value=ir.tensor(array, name=full_name))
        value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
        self.graph.register_initializer(value)
        return value

    def _transpose(self, transpose: ir.Node) -> None:
        """Store it the other way, so that a kernel finds it."""
        order = transpose.attributes.get_ints("perm")
        output = self.node.outputs[0]
        self.node.attributes["axis"] = ir.AttrInt64("axis", order.index(self.node.attributes.get_int("axis", 1)))
        self.levels = self.levels.transpose(order)
        output.shape = ir.Shape(self.levels.shape)
        transpose.outputs[0].replace_all_uses_with(output)
        self.graph.remove(transpose, safe=True)

    def _place_bias(self, user: ir.Node) -> None:
        """ONNX Runtime rounds the bias of integer kernels to int32, in steps of ``input scale * weight scale``.

        From 8-bit inputs and weights of more than 4 bits that is far below a step of the output, but for channels that
        BatchNorm multiplies by thousands and the activation cuts off: so it may for Conv, and is done here for Gemm,
        where it does not by itself. Otherwise the bias would be lost. Added behind, it leaves a Conv to the kernels for
        float32, which are also right for weights that those for integers are not made for: zero points that vary, and
        levels that overflow.
        """
        source, bias = user.inputs[0].producer(), user.inputs[2]
        if source is not None and source.op_type == "Pad":
            source = source.inputs[0].producer()  # padding goes into the convolution
        if source is None or source.op_type != "DequantizeLinear" or bias.const_value is None:
            return
        if not self.for_kernels or self.bits.activation != 8:
            self._add_behind(user, bias)
            return
        values, input_scale = bias.const_value.numpy(), source.inputs[1].const_value.numpy().astype(np.float64)
        self._make_room(np.abs(values) / input_scale / 2**30)
        if user.op_type == "Gemm":
            step = input_scale * self.scale
            self._store_bias(user, np.rint(values / step).astype(np.int32), step.astype(np.float32))

    def _make_room(self, least: NDArray[Any]) -> None:
        """Widen the scale of channels whose weights are so small beside their bias that this would not fit in int32.

        Their levels are rounded once more, which moves the output by less than float32 rounds the bias.
        """
        scale = np.broadcast_to(self.scale, least.shape)
        if (scale >= least).all():
            return
        wider = np.maximum(scale, least).astype(np.float32)
        factor = (scale / wider).reshape(-1, *[1] * (self.levels.ndim - 1))
        self.levels, self.scale = np.rint(self.levels * factor).astype(np.int16), wider
        self.zero_point = np.broadcast_to(self.zero_point, wider.shape)

    def _store_bias(self, gemm: ir.Node, levels: NDArray[Any], step: NDArray[Any]) -> None:
        step = np.broadcast_to(step, levels.shape)
        stored = [self._initializer("bias.levels", levels), self._initializer("bias.scale", step)]
        dequantize = ir.node("DequantizeLinear", stored, {"axis": 0})
        dequantize.outputs[0].shape, dequantize.outputs[0].dtype = gemm.inputs[2].shape, gemm.inputs[2].dtype
        self.graph.insert_before(gemm, dequantize)
        gemm.replace_input_with(2, dequantize.outputs[0])

    def _add_behind(self, user: ir.Node, bias: ir.Value) -> None:
        output = user.outputs[0]
        shape = (-1,) if user.op_type == "Gemm" else (1, -1, *[1] * (len(output.shape) - 2))
        behind = self._initializer("bias.behind", bias.const_value.numpy().reshape(shape))
        addition = ir.node("Add", [output, behind])
        added = addition.outputs[0]
        added.shape, added.dtype = output.shape, output.dtype
        output.replace_all_uses_with(added, replace_graph_outputs=True)
        addition.replace_input_with(0, output)
        if added.is_graph_output():
            added.name, output.name = output.name, None
        self.graph.insert_after(user, addition)
        user.resize_inputs(2)


def _overflows(levels: NDArray[Any]) -> bool:
    """Whether 255 times two weights that a kernel has side by side (input channels innermost) can leave 16 bits."""
    rows = np.moveaxis(levels, 1, -1).reshape(len(levels), -1)
    return bool((np.abs(rows[:, :-1] + rows[:, 1:]) > 128).any())
