"""A network whose layers compute with rounded weights and rounded inputs: fake quantization.

A quantized copy keeps the architecture. Each convolution and linear layer, of any subclass, computes with its weight
rounded to a grid (a parametrization, so the trained weight stays in full precision underneath) and with its input
rounded to a grid (a forward pre-hook). What feeds a layer is quantized at the layer, so no activation function has to
be known by name. Where another module takes the layer's weight and computes with it (fused attention projections), the
weight brings the quantizer of its input along.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zerosum.players.arguments import input_name
from zerosum.players.backbones import InputSpace
from zerosum.players.quantization.attention import separated
from zerosum.players.quantization.precision import FULL_PRECISION, Bits, assign_bits, quantizable_layers
from zerosum.players.quantization.quantizers import (
    ActivationQuantizer,
    LayerWeight,
    LogitsQuantizer,
    WeightQuantizer,
)
from zerosum.players.quantization.scheme import Scheme
from zerosum.players.quantization.sums import quantize_sums
from zerosum.players.quantization.tracing import find_ends
from zerosum.players.statistics import Taps


def _enter_layer(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    layer.parametrizations.weight[0].in_layer = True
    if args:
        return (layer.input_quantizer(args[0]), *args[1:]), kwargs
    name = input_name(layer, kwargs)
    return args, kwargs if name is None else kwargs | {name: layer.input_quantizer(kwargs[name])}


def _leave_network(last_layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    rounded: Tensor = last_layer.output_quantizer(output)
    return rounded


def _leave_layer(layer: Any, args: tuple[Any, ...], output: Any) -> None:
    layer.parametrizations.weight[0].in_layer = False


def quantize(
    network: nn.Module,
    bits: Bits | Mapping[str, Bits],
    scheme: Scheme | None = None,
    space: InputSpace | None = None,
) -> nn.Module:
    """A quantized copy of ``network``: every Conv and Linear layer's weight, and what enters the layer.

    nn.MultiheadAttention is four linear layers in it (:func:`separated`).

    Activation ranges come from :func:`calibrate`. The network itself stays as it was, and taps on it stay there;
    the copy's state dict holds the full-precision weights (under ``parametrizations.weight.original``) and the ranges
    (``low``, ``high`` of ``parametrizations.weight.0`` and ``input_quantizer``), and loads into another copy made with
    the same bits and scheme.

    Args:
        bits: of all layers, as :func:`assign_bits` gives them (it keeps the network's own input at 8 bits or more), or
            those of each layer by name.
        scheme: default: asymmetric grids, per channel for weights, per tensor for activations, of least squared error.
        space: what the network takes; default: what its timm config says. Quantized sums need one of the two.

    Raises:
        ValueError: bits out of range, a network with no Conv or Linear layer, ``bits`` that do not name its layers, or
            quantized sums of a network with no ``space`` and no timm config.
    """
    scheme = scheme or Scheme()
    network = separated(network)
    if isinstance(bits, Bits):
        bits = assign_bits(network, bits, space=space)
    quantized = _untapped_copy(network)
    layers = quantizable_layers(quantized)
    if bits.keys() != layers.keys():
        raise ValueError(f"bits for {', '.join(bits)}; expected them for {', '.join(layers)}")
    symmetric = scheme.activation_grid == "symmetric"
    for name, layer in layers.items():
        bits[name].check(f"layer {name}")
        inputs = None
        if bits[name].activation < FULL_PRECISION:
            inputs = ActivationQuantizer(bits[name].activation, scheme.activation_range, symmetric)
            layer.input_quantizer = inputs.to(layer.weight.device)
            layer.register_forward_pre_hook(_enter_layer, with_kwargs=True)
            layer.register_forward_hook(_leave_layer, always_call=True)
        if min(bits[name]) < FULL_PRECISION:
            quantizer = WeightQuantizer(layer, bits[name].weight, scheme, inputs)
            parametrize.register_parametrization(layer, "weight", quantizer)
    if scheme.sums == "quantized":
        quantize_sums(quantized, scheme, space)
    if scheme.logits == "quantized":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what assign_bits has said
            last = layers[find_ends(network, quantizable_layers(network), space).last]
        last.output_quantizer = LogitsQuantizer(symmetric).to(last.weight.device)
        last.register_forward_hook(_leave_network)
    return quantized


def _untapped_copy(network: nn.Module) -> nn.Module:
    copies: dict[int, Any] = {}
    network = copy.deepcopy(network, copies)
    for copied in list(copies.values()):
        if isinstance(copied, Taps):
            copied.remove()
    return network


def layer_bits(quantized: nn.Module) -> dict[str, Bits]:
    """The bits of every layer of a network that :func:`quantize` made, by name."""
    found = {}
    for name, layer in quantizable_layers(quantized).items():
        weights, inputs = weight_quantizer(layer), getattr(layer, "input_quantizer", None)
        found[name] = Bits(
            *(FULL_PRECISION if quantizer is None else quantizer.bits for quantizer in (weights, inputs))
        )
    return found


def float_weight(layer: nn.Module) -> Tensor:
    """A layer's weight in full precision, from underneath its quantizer."""
    parametrized = parametrize.is_parametrized(layer, "weight")
    return layer.parametrizations.weight.original if parametrized else layer.weight  # type: ignore


def weight_quantizer(layer: nn.Module) -> LayerWeight | None:
    """What a layer's weight is computed by, if it is quantized."""
    return layer.parametrizations.weight[0] if parametrize.is_parametrized(layer, "weight") else None  # type: ignore


def _activation_quantizers(network: nn.Module) -> Iterator[ActivationQuantizer]:
    return (module for module in network.modules() if isinstance(module, ActivationQuantizer))


@torch.no_grad()
def calibrate(quantized: nn.Module, batches: Iterable[Tensor]) -> None:
    """Observe activation ranges afresh on batches of images (N, channels, height, width), then keep them."""
    for quantizer in _activation_quantizers(quantized):
        quantizer.reset()
        quantizer.observing = True
    try:
        for images in batches:
            quantized(images)
    finally:
        for quantizer in _activation_quantizers(quantized):
            quantizer.observing = False
