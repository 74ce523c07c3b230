"""A quantized network's tensors as they are stored: weights as integers of a few bits, packed without gaps.

Of a layer ``L`` whose weight has b < 32 bits: ``L.weight.levels`` (uint8, the b-bit levels one after another, most
significant bit first), ``L.weight.scale`` and ``L.weight.zero_point``, which broadcast against the weight: it is
``scale * (level - zero_point)``. Everything else is stored as it is; a tensor of several names, under the first.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from zerosum.players.quantization.integers import Integers, integers_of, keep_integers
from zerosum.players.quantization.layers import float_weight, quantize, weight_quantizer
from zerosum.players.quantization.precision import FULL_PRECISION, Bits, quantizable_layers
from zerosum.players.quantization.quantizers import ActivationQuantizer, weight_shape
from zerosum.players.quantization.scheme import Scheme

_PARTS = ("levels", "scale", "zero_point")


def pack(levels: Tensor, bits: int) -> Tensor:
    """Integers of 0 … 2^bits - 1, any shape → (ceil(numel * bits / 8),) uint8."""
    values = levels.detach().cpu().flatten().to(torch.uint8).numpy()
    return torch.from_numpy(np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - bits :]))


def unpack(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """The uint8 integers that :func:`pack` packed, in ``shape``.

    Raises:
        ValueError: ``packed`` has another length.
    """
    expected = -(-shape.numel() * bits // 8)
    if packed.shape != (expected,):
        raise ValueError(f"{tuple(packed.shape)} bytes; {tuple(shape)} weights of {bits} bits have {expected}")
    values = np.unpackbits(packed.numpy(), count=shape.numel() * bits).reshape(-1, bits)
    return torch.from_numpy(np.packbits(np.pad(values, ((0, 0), (8 - bits, 0))), axis=1)).reshape(shape)


@torch.no_grad()
def packed_state(quantized: nn.Module) -> dict[str, Tensor]:
    """The tensors to store of a network that :func:`quantize` made."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in quantized.state_dict().items()}
    for name in _other_names(quantized):
        del state[name]
    for name, layer in quantizable_layers(quantized).items():
        quantizer, integers = weight_quantizer(layer), integers_of(layer)
        if quantizer is None:
            continue
        for key in [key for key in state if key.startswith(f"{name}.parametrizations.weight.")]:
            del state[key]
        if integers is None:
            state[f"{name}.weight"] = float_weight(layer).detach().cpu().contiguous()
            continue
        state[f"{name}.weight.levels"] = pack(integers.levels, quantizer.bits)
        state[f"{name}.weight.scale"] = integers.scale.cpu()
        state[f"{name}.weight.zero_point"] = integers.zero_point.cpu()
    return state


def load_packed(network: nn.Module, state: Mapping[str, Tensor], bits: Mapping[str, Bits], scheme: Scheme) -> nn.Module:
    """A quantized copy of ``network`` with the tensors of :func:`packed_state`; it keeps its weights as integers.

    Raises:
        KeyError, RuntimeError, ValueError: the tensors are not of such a network.
    """
    inputs_only = {name: Bits(FULL_PRECISION, width.activation) for name, width in bits.items()}
    if scheme.activation_range in ("auto", "lsq"):
        scheme = dataclasses.replace(scheme, activation_range="mse")
    quantized = quantize(network, inputs_only, scheme)
    for name, module in quantized.named_modules():
        if isinstance(module, ActivationQuantizer) and f"{name}.scale" in state:  # whatever auto stands for by now
            module.learn_scale()
    state = dict(state)
    for name, layer in quantizable_layers(quantized).items():
        if bits[name].weight < FULL_PRECISION:
            packed, scale, zero_point = (state.pop(f"{name}.weight.{part}") for part in _PARTS)
            levels = unpack(packed, bits[name].weight, weight_shape(layer))
            keep_integers(layer, Integers(levels, scale, zero_point), bits[name].weight)
            kept = {"original": levels, "0.scale": scale, "0.zero_point": zero_point}
            state |= {f"{name}.parametrizations.weight.{key}": tensor for key, tensor in kept.items()}
        elif weight_quantizer(layer) is not None:
            state[f"{name}.parametrizations.weight.original"] = state.pop(f"{name}.weight")
    state |= {name: state[first] for name, first in _other_names(quantized).items()}
    quantized.load_state_dict(state)
    return quantized


def _other_names(network: nn.Module) -> dict[str, str]:
    """Of tensors that have several names in the state dict: by each but the first, the first."""
    first: dict[int, str] = {}
    named = network.state_dict(keep_vars=True).items()
    return {name: known for name, tensor in named if (known := first.setdefault(id(tensor), name)) != name}
