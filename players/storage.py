"""A quantized network on disk: one safetensors file that says itself how to build the network it belongs to."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from zerosum.players.backbones import load_backbone
from zerosum.players.quantization import Bits, Scheme, layer_bits, load_packed, packed_state

QUANTIZED = "quantized.safetensors"
_KEY = "zerosum.quantized"


class Description(NamedTuple):
    """What a saved network is of: ``bits`` of each layer, by its name."""

    backbone: str
    num_classes: int
    bits: Mapping[str, Bits]
    scheme: Scheme


def save_quantized(path: str | Path, network: nn.Module, backbone: str, scheme: Scheme) -> None:
    """Write a network that ``quantize`` made of ``backbone``, with what :func:`load_quantized` needs to know.

    The file holds the quantized weights as packed integers (see :mod:`zerosum.players.quantization.packing`),
    activation ranges, and all else in float32.

    Raises:
        OSError: the file cannot be written.
    """
    description = {
        "backbone": backbone,
        "num_classes": network.num_classes,
        "bits": {name: str(bits) for name, bits in layer_bits(network).items()},
        "scheme": asdict(scheme),
    }
    Path(path).write_bytes(save(packed_state(network), metadata={_KEY: json.dumps(description)}))


def load_quantized(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The network that :func:`save_quantized` wrote, in eval mode: images in normalised input space → logits.

    It keeps its weights as integers, and computes in float arithmetic with their values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by :func:`save_quantized`.
    """
    return load_described(path, device)[0]


def load_described(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, Description]:
    """:func:`load_quantized`, and what the network is of."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = json.loads((file.metadata() or {})[_KEY])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        bits = {name: Bits.parse(text) for name, text in found["bits"].items()}
        description = Description(found["backbone"], found["num_classes"], bits, Scheme(**found["scheme"]))
        network = load_backbone(description.backbone, "random", description.num_classes)
        network = load_packed(network, state, bits, description.scheme)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a quantized network that zerosum saved ({error})") from error
    return network.eval().to(device), description
