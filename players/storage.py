"""A quantized network on disk: one safetensors file that says itself how the network it belongs to is built."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from zerosum.players.architectures import Architecture
from zerosum.players.quantization import Bits, Scheme, layer_bits, load_packed, packed_state
from zerosum.players.spaces import InputSpace, say_space

QUANTIZED = "quantized.safetensors"
_KEY = "zerosum.quantized"
_LARGEST_HEADER = 100_000_000  # bytes, as the format has it


class Description(NamedTuple):
    """What a saved network is of: how it is built, ``bits`` of each layer by its name, what it takes, and what its
    classes are called where that is known."""

    architecture: Architecture
    bits: Mapping[str, Bits]
    scheme: Scheme
    space: InputSpace
    class_names: tuple[str, ...] | None = None


def save_quantized(
    path: str | Path,
    network: nn.Module,
    architecture: Architecture,
    space: InputSpace,
    scheme: Scheme,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write a network that ``quantize`` made of one of ``architecture``, with what :func:`load_quantized` has to know.

    The file holds the quantized weights as packed integers (see :mod:`zerosum.players.quantization.packing`),
    activation ranges, and all else in float32.

    Args:
        space: the images that the network takes.
        class_names: of its classes, in their order.

    Raises:
        OSError: the file cannot be written.
    """
    description = {
        "architecture": asdict(architecture),
        "bits": {name: str(bits) for name, bits in layer_bits(network).items()},
        "scheme": asdict(scheme),
        "space": space._asdict(),
        "class_names": list(class_names) if class_names is not None else None,
    }
    Path(path).write_bytes(save(packed_state(network), metadata={_KEY: json.dumps(description)}))


def load_quantized(
    path: str | Path, device: torch.device | str = "cpu", into: nn.Module | None = None, trust: bool = False
) -> nn.Module:
    """The network that :func:`save_quantized` wrote, in eval mode: images in normalised input space → logits.

    It keeps its weights as integers, and computes in float arithmetic with their values. What it takes,
    :func:`zerosum.players.input_space` says.

    Args:
        into: a network built as the saved one was, its weights do not matter; a copy is taken, and it stays as it is.
            Where it is given, nothing is built from the file.
        trust: whether to import and call the factory that the file names, where there is one: code of its author's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by :func:`save_quantized`; a network that timm does not build, and neither
            ``into`` nor ``trust``; an ``into`` that is built otherwise.
    """
    return load_described(path, device, into, trust)[0]


def load_described(
    path: str | Path, device: torch.device | str = "cpu", into: nn.Module | None = None, trust: bool = False
) -> tuple[nn.Module, Description]:
    """:func:`load_quantized`, and what the network is of."""
    path = Path(path)
    description = read_description(path)
    with _reading(path):
        state = load(path.read_bytes())
    if into is None:
        _check_trusted(path, description.architecture, trust)
    try:
        network = copy.deepcopy(into) if into is not None else description.architecture.build()
        say_space(network, description.space, description.class_names)
        network = load_packed(network.eval(), state, description.bits, description.scheme)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        what = "not a quantized network that zerosum saved" if into is None else "into is built otherwise than it was"
        raise ValueError(f"{path}: {what} ({error})") from error
    return network.eval().to(device), description


def read_description(path: str | Path) -> Description:
    """What the network is of that :func:`save_quantized` wrote; nothing is built.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by :func:`save_quantized`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with _reading(path):
        return _description(json.loads(_header(path)["__metadata__"][_KEY]))


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file begins with. The library's own reader takes no path that is not UTF-8."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _LARGEST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        found: dict[str, Any] = json.loads(file.read(size))
        return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a quantized network that zerosum saved ({error})") from error


def _description(found: Mapping[str, Any]) -> Description:
    space, names = found["space"], found["class_names"]
    return Description(
        Architecture(**found["architecture"]),
        {name: Bits.parse(text) for name, text in found["bits"].items()},
        Scheme(**found["scheme"]),
        InputSpace(space["channels"], tuple(space["size"]), tuple(space["mean"]), tuple(space["std"])),
        tuple(names) if names is not None else None,
    )


def _check_trusted(path: Path, architecture: Architecture, trust: bool) -> None:
    """A file may come from a stranger, and a factory is code."""
    call = f"zerosum.load({str(path.parent)!r}"
    with_network = f"{call}, into=network) with a network that is built so"
    if architecture.kind == "module":
        raise ValueError(f"{path}: of a {architecture.name} that was handed in; {with_network}")
    if architecture.kind == "factory" and not trust:
        raise ValueError(
            f"{path}: built by {architecture.name}, which is code and not run unasked; {with_network}, or "
            f"{call}, trust=True) to import and call it (export: --trust)"
        )
