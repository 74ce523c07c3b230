"""A program of integers as an ONNX graph: QuantizeLinear and DequantizeLinear around every quantized layer."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import opset18 as op
from onnxscript import optimizer
from torch.export import ExportedProgram

from zerosum.players.export.onnx_weights import StoredWeight
from zerosum.players.export.quiet import quiet
from zerosum.players.export.targets import SMALL, Layout
from zerosum.players.quantization import Bits


def onnx_model(program: ExportedProgram, bits: Mapping[str, Bits], opset: int, layout: Layout = SMALL) -> ir.Model:
    """The model of a program with an input ``images`` and an output ``logits``.

    Its metadata's ``kernels`` is ``integer`` where integer kernels can run some layers, and run them right; ``float32``
    where a runtime does best to unpack the weights at once (ONNX Runtime: ``session.disable_quant_qdq``).

    Args:
        bits: of each layer that keeps integers, by its name.
        layout: how they are held.

    Raises:
        ValueError: an operator of the network has no counterpart in ONNX; the message names it.
    """
    with quiet():
        return _make(program, bits, opset, layout)


def _make(program: ExportedProgram, bits: Mapping[str, Bits], opset: int, layout: Layout) -> ir.Model:
    model = _translate(program, opset, layout)
    graph = model.graph
    graph.inputs[0].name, graph.outputs[0].name = "images", "logits"
    for tidy in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),  # so that what is quantized for two layers alike is quantized once
        common.CommonSubexpressionEliminationPass(),
    ):
        tidy(model)
    stored = [
        StoredWeight(node, bits, opset, layout)
        for node in graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer()
    ]
    for weight in stored:
        weight.place()
    optimizer.optimize(model)
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    if stored:
        integer = not layout.signed and any(weight.for_kernels for weight in stored)
        model.metadata_props["kernels"] = "integer" if integer else "float32"
    return model


def _translate(program: ExportedProgram, opset: int, layout: Layout) -> ir.Model:
    operators = torch.ops.zerosum
    rounding = _round_to_signed_grid if layout.signed else _round_to_grid
    table: Any = {operators.dequantize.default: _dequantize, operators.round_to_grid.default: rounding}
    try:
        made: Any = torch.onnx.export(
            program, dynamo=True, opset_version=opset, optimize=False, verbose=False, custom_translation_table=table
        )
    except Exception as error:  # of types that torch keeps private
        raise ValueError(f"the network cannot be written as ONNX: {_cause(error)}") from error
    return made.model


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
    whole = np.uint8 if bits <= 8 else np.uint16
    step, zero = op.Constant(value=ir.tensor(np.float32(scale))), op.Constant(value=ir.tensor(whole(zero_point)))
    if 8 < bits < 16:  # cut before: ONNX Runtime has no Clip for uint16
        x = _cut(x, scale, zero_point, bits)
    levels = op.QuantizeLinear(x, step, zero)
    if bits < 8:
        lowest, highest = (op.Constant(value=ir.tensor(np.uint8(end))) for end in (0, 2**bits - 1))
        levels = op.Clip(levels, lowest, highest)
    return op.DequantizeLinear(levels, step, zero)


def _cut(x, scale: float, zero_point: int, bits: int):  # type: ignore[no-untyped-def]
    ends = (np.float32((end - zero_point) * scale) for end in (0, 2**bits - 1))
    return op.Clip(x, *(op.Constant(value=ir.tensor(end)) for end in ends))


def _round_to_signed_grid(x, scale: float, zero_point: int, bits: int):  # type: ignore[no-untyped-def]
    whole, half = (np.int8, 128) if bits <= 8 else (np.int16, 2**15)
    zero = zero_point - half
    if bits not in (8, 16):  # cut before, as nothing may stand between the two; then levels around 0 have room
        x, zero = _cut(x, scale, zero_point, bits), 0
    step, origin = op.Constant(value=ir.tensor(np.float32(scale))), op.Constant(value=ir.tensor(whole(zero)))
    return op.DequantizeLinear(op.QuantizeLinear(x, step, origin), step, origin)
