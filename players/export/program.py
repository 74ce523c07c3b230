"""A quantized network as a program of integers, with BatchNorm folded into its convolutions: what is written down."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from zerosum.players.lazy import timm
from zerosum.players.quantization.integers import Integers, IntegerWeight, integers_of, keep_integers, round_to_grid
from zerosum.players.quantization.layers import layer_bits, weight_quantizer
from zerosum.players.quantization.precision import quantizable_layers
from zerosum.players.quantization.quantizers import ActivationQuantizer
from zerosum.players.quantization.taken import TakenWeights

_ATEN = torch.ops.aten
LAYERS = {
    *(_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default, _ATEN.linear.default),
    *(_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input, _ATEN.conv_transpose3d.input),
}


def integer_network(quantized: nn.Module, images: Tensor) -> nn.Module:
    """A copy on the CPU of a calibrated quantized network, in eval mode: of the same values, to float32 rounding.

    It keeps its weights as integers, and the BatchNorm after a layer is folded into it.

    Args:
        images: (N, channels, height, width), N > 1.

    Raises:
        ValueError: the network cannot be traced; the message says what torch.export met.
    """
    network = integer_copy(quantized)
    for layer, batchnorm in batchnorm_after(trace(network, images)).items():
        fold(network, layer, batchnorm)
    return network


def float_twin(network: nn.Module) -> nn.Module:
    """A copy of an :func:`integer_network` with the values of its weights in float32, and nothing rounded."""
    twin = copy.deepcopy(network)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, FixedRounding):
                setattr(module, name, nn.Identity())
    layers: Any = quantizable_layers(twin).values()
    for layer in layers:
        if isinstance(quantizer := weight_quantizer(layer), IntegerWeight):
            kept = layer.parametrizations.weight
            kept.original = quantizer.rounded(kept.original)
            kept[0] = nn.Identity()
    return twin


class FixedRounding(nn.Module):
    """An activation quantizer whose range does not change any more."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        grid = quantizer.grid()
        self.scale, self.zero_point, self.bits = grid.scale.item(), int(grid.zero_point.item()), grid.bits

    def forward(self, x: Tensor) -> Tensor:
        return round_to_grid(x, self.scale, self.zero_point, self.bits)


def integer_copy(quantized: nn.Module) -> nn.Module:
    """A copy on the CPU that keeps its weights as integers and rounds by :func:`round_to_grid`; the same function."""
    network, bits = copy.deepcopy(quantized).cpu().eval().requires_grad_(False), layer_bits(quantized)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ActivationQuantizer):
                setattr(module, name, FixedRounding(child) if child.observed else nn.Identity())
    for name, layer in quantizable_layers(network).items():
        if (integers := integers_of(layer)) is not None:
            keep_integers(layer, integers, bits[name].weight)
    return network


def trace(network: nn.Module, images: Tensor) -> ExportedProgram:
    """What torch.export makes of a network that takes such images; of any number, where the network allows that, unless
    it is given one.

    Raises:
        ValueError: it cannot be traced; the message says what torch.export met.
    """
    shapes = ({0: torch.export.Dim.AUTO},) if len(images) > 1 else None
    try:
        with torch.no_grad(), TakenWeights():
            return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many types, by what the network does
        raise ValueError(f"the network cannot be traced: {type(error).__name__}: {error}") from error


def batchnorm_after(program: ExportedProgram) -> dict[str, str]:
    """By name, the layers that keep integers and whose output a BatchNorm takes, and nothing else does: that one."""
    tensors = {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
    }
    suffix, found = ".parametrizations.weight.original", {}
    for node in program.graph.nodes:
        if node.target != _ATEN.batch_norm.default:
            continue
        output, mean = node.args[0], node.args[3]
        if output.target not in LAYERS or len(output.users) > 1 or not _is_kept_by_one(mean, tensors):
            continue
        weight = output.args[1]
        if weight.target == torch.ops.zerosum.dequantize.default and len(weight.users) == 1:
            weight = weight.args[0]
        name, batchnorm = tensors.get(weight.name) or "", tensors[mean.name].rpartition(".")[0]
        along_channels = output.target != _ATEN.linear.default or output.meta["val"].ndim == 2
        if name.endswith(suffix) and len(weight.users) == 1 and along_channels:
            found[name.removesuffix(suffix)] = batchnorm
    return found


def _is_kept_by_one(node: Node | None, tensors: dict[str, str]) -> bool:
    return node is not None and node.name in tensors and len(node.users) == 1


def fold(network: nn.Module, layer_name: str, batchnorm_name: str) -> None:
    """Let a layer that keeps integers do what the BatchNorm after it does; it stays on its grid.

    BatchNorm multiplies output channel c by ``f = weight / sqrt(running_var + eps)`` and adds to it. The scale of c's
    levels takes up ``|f|``; where f < 0, levels are mirrored, at the zero point where the grid reaches as far on the
    other side of it, or else with the whole grid. (Krishnamoorthi, 2018, section 3.2.2, folds before rounding; this is
    after it, and exact.) A BatchNorm of a class that is not known stays where it is.
    """
    layer: Any = network.get_submodule(layer_name)
    batchnorm: Any = network.get_submodule(batchnorm_name)
    if isinstance(batchnorm, timm.layers.BatchNormAct2d):
        rest: nn.Module = nn.Sequential(batchnorm.drop, batchnorm.act)
    elif type(batchnorm).__module__.startswith("torch.") and isinstance(batchnorm, _BatchNorm):
        rest = nn.Identity()
    else:
        return
    transposed = isinstance(layer, _ConvTransposeNd)
    integers = integers_of(layer)
    if integers is None or (transposed and layer.groups > 1):
        return
    factor = (batchnorm.running_var.double() + batchnorm.eps).rsqrt()
    if batchnorm.affine:
        factor = factor * batchnorm.weight.double()
    shift = -batchnorm.running_mean.double() * factor + (batchnorm.bias.double() if batchnorm.affine else 0)
    if layer.bias is not None:
        shift = shift + layer.bias.double() * factor
    bits = layer.parametrizations.weight[0].bits
    keep_integers(layer, _times(integers, factor, bits, channel_axis=1 if transposed else 0), bits)
    layer.bias = nn.Parameter(shift.float(), requires_grad=False)
    for module in list(network.modules()):  # it may have several names
        for name, child in module.named_children():
            if child is batchnorm:
                setattr(module, name, rest)


def _times(integers: Integers, factor: Tensor, bits: int, channel_axis: int) -> Integers:
    """The weight with output channel c multiplied by ``factor[c]``; a product too small for float32 becomes zero."""
    shape = [-1 if axis == channel_axis else 1 for axis in range(integers.levels.ndim)]
    factor = factor.reshape(shape)
    levels, zero_point = integers.levels.int(), integers.zero_point.int().expand(factor.shape)
    last = 2**bits - 1
    others = [axis for axis in range(levels.ndim) if axis != channel_axis]
    mirrored = 2 * zero_point - levels
    fits = (mirrored.amin(others, keepdim=True) >= 0) & (mirrored.amax(others, keepdim=True) <= last)
    negative = factor < 0
    levels = torch.where(negative, torch.where(fits, mirrored, last - levels), levels)
    zero_point = torch.where(negative & ~fits, last - zero_point, zero_point)
    scale = (integers.scale.double() * factor.abs()).float()
    vanishes = scale < torch.finfo(scale.dtype).tiny
    levels = torch.where(vanishes, zero_point, levels)
    scale = torch.where(vanishes, torch.ones_like(scale), scale)
    return Integers(levels.to(torch.uint8), scale, zero_point.to(torch.uint8))
