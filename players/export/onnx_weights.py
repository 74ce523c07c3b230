"""Weights in an ONNX graph: how their levels are stored, and the biases beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zerosum.players.export.signed import around_0, around_middle
from zerosum.players.export.targets import Layout
from zerosum.players.quantization import Bits

_FOUR_BITS_SINCE = 21  # opset
_CONVOLUTIONS = ("Conv", "ConvTranspose")


class StoredWeight:
    """A weight behind its DequantizeLinear ``node``, and what of its layer depends on how it is stored.

    Levels are centred on zero, as kernels want weights, in the smallest type that holds them. Where ONNX Runtime's
    kernels for int8 would overflow (:func:`zerosum.players.quantization.ranges.pairwise`), 8 bits go into uint8, for
    which it has exact ones.
    """

    def __init__(self, node: ir.Node, bits: Mapping[str, Bits], opset: int, layout: Layout) -> None:
        self.node, self.graph, self.layout = node, node.graph, layout
        self.layer = node.inputs[0].name.removesuffix(".parametrizations.weight.original").removesuffix(".weight")
        self.bits = bits[self.layer]
        levels, scale, zero_point = (value.const_value.numpy() for value in node.inputs)
        self.levels, self.zero_point = around_middle(levels, zero_point, self.bits.weight)
        if layout.wide:
            self.levels, self.zero_point, scale = around_0(self.levels, self.zero_point, scale, self.bits.weight)
        self.zero_point, self.scale = self.zero_point.ravel(), scale.ravel()
        users = [use.node for use in self.node.outputs[0].uses()]
        fits = layout.overflow or is_depthwise(self.levels, users) or not overflows(self.levels)
        fits = fits and self.bits.activation <= 8
        self.for_kernels = (layout.wide or self.bits.weight > 4) and not self.zero_point.any() and fits
        if self.bits.weight <= 4 and opset >= _FOUR_BITS_SINCE and not layout.wide:
            self.dtype, self.origin = ml_dtypes.int4, 0
        elif self.bits.weight < 8 or self.for_kernels or layout.overflow:
            self.dtype, self.origin = np.int8, 0
        else:
            self.dtype, self.origin = np.uint8, 128

    def place(self) -> None:
        """Store the weight, and its layer's bias as it suits."""
        for use in list(self.node.outputs[0].uses()):
            if use.node.op_type in (*_CONVOLUTIONS, "Gemm") and len(use.node.inputs) > 2 and use.node.inputs[2]:
                if not self.layout.signed:
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


def is_depthwise(levels: NDArray[Any], users: Sequence[ir.Node]) -> bool:
    """Whether a weight is of convolutions that have kernels of another kind, which do not overflow."""
    return levels.shape[1] == 1 and all(user.attributes.get_int("group", 1) > 1 for user in users)


def overflows(levels: NDArray[Any]) -> bool:
    """Whether 255 times two weights that a kernel has side by side (input channels innermost) can leave 16 bits."""
    levels = levels.astype(np.int16)
    rows = np.moveaxis(levels, 1, -1).reshape(len(levels), -1)
    return bool((np.abs(rows[:, :-1] + rows[:, 1:]) > 128).any())
