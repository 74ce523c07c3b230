"""A quantized network on disk: one safetensors file that says itself how to build the network it belongs to."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from players.backbones import load_backbone
from players.quantization import Bits, quantize

_KEY = "zerosum.quantized"


def save_quantized(path: str | Path, network: nn.Module, backbone: str, bits: Bits) -> None:
    """Write the state of a network that ``quantize`` made of ``backbone``, with what :func:`load_quantized` needs.

    The file holds full-precision weights and activation ranges: fake quantization, not packed integers.
    """
    description = {
        "backbone": backbone,
        "num_classes": network.num_classes,
        "weight_bits": bits.weight,
        "activation_bits": bits.activation,
    }
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, path, metadata={_KEY: json.dumps(description)})


def load_quantized(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The network that :func:`save_quantized` wrote, in eval mode: images in normalised input space → logits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by :func:`save_quantized`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            description = json.loads((file.metadata() or {})[_KEY])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        network = load_backbone(description["backbone"], "random", description["num_classes"])
        network = quantize(network, description["weight_bits"], description["activation_bits"])
        network.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a quantized network that zerosum saved ({error})") from error
    return network.eval().to(device)
