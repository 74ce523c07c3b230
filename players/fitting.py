"""A checkpoint put into a network: only where names, shapes and numbers are the network's."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zerosum.players.weights import listed, read_state

_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def load_weights(network: nn.Module, name: str, path: Path, key: str | None = None) -> None:
    """Load the checkpoint at ``path`` into ``network``, which messages call ``name``.

    Warns of what it leaves out, and where it takes tensors in order, since names differ and all shapes agree.

    Args:
        key: which of several state dicts (:func:`zerosum.players.weights.read_state`).

    Raises:
        ValueError: the file is damaged, or would run code; it is of another network, whose shapes may tell which option
            says so; or it has numbers that no weights are.
    """
    expected = network.state_dict()
    state, left_out = read_state(path, expected, key)
    if left_out:
        warnings.warn(f"weights {path}: left out {listed(left_out)}", stacklevel=6)
    unknown = not expected.keys() & state.keys()
    if unknown and [v.shape for v in expected.values()] == [v.shape for v in state.values()]:
        warnings.warn(f"weights {path}: other names than {name}'s; taken in order, all shapes agree", stacklevel=6)
        state = dict(zip(expected, state.values(), strict=True))
    if problems := _mismatches(expected, state):
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        names = f"; found {listed(state)}; expected {listed(expected)}" if unknown else ""
        raise ValueError(f"weights {path} are not of {name}: {shown}{names}{_advice(network, expected, state)}")
    for which, value in state.items():
        if problem := _bad_values(which, value, expected[which]):
            raise ValueError(f"weights {path}: {which} {problem}")
    network.load_state_dict(state)


def _mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    # Checkpoints from before PyTorch 1.0 have no count of batches; BatchNorm then starts one.
    problems = [f"{k} is missing" for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    problems += [f"{key} is unexpected" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    return problems


def _advice(network: nn.Module, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The options under which a timm network would have the shapes that are found, as far as shapes tell."""
    config: Any = getattr(network, "pretrained_cfg", None)
    if not config:
        return ""
    options = []
    for name in _names(config.get("classifier")):
        rows = [state[f"{name}.weight"].shape for state in (expected, found) if f"{name}.weight" in state]
        if len(rows) == 2 and rows[0][0] != rows[1][0] and rows[0][1:] == rows[1][1:]:
            options.append(f"--num-classes {rows[1][0]}")
    channels, height, width = config["input_size"]
    size = _size(network, expected, found) or (height, width)
    for name in _names(config.get("first_conv")):
        stems = [state[f"{name}.weight"].shape for state in (expected, found) if f"{name}.weight" in state]
        if len(stems) == 2 and stems[0][2:] == stems[1][2:] and stems[0][1] != stems[1][1]:
            channels = stems[1][1] * channels // stems[0][1]  # a first layer that is in groups takes more
    if (channels, *size) != tuple(config["input_size"]):
        options.append(f"--input-size {channels} {size[0]} {size[1]}")
    return f"; try {' '.join(dict.fromkeys(options))}" if options else ""


def _names(config: str | tuple[str, ...] | list[str] | None) -> list[str]:
    return [config] if isinstance(config, str) else list(config or ())


def _size(network: Any, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Height and width of the square images whose patches a position embedding in ``found`` counts."""
    patches = getattr(network, "patch_embed", None)
    shapes = [state["pos_embed"].shape for state in (expected, found) if "pos_embed" in state]
    if patches is None or len(shapes) < 2 or len(shapes[0]) != 3 or len(shapes[1]) != 3 or shapes[0] == shapes[1]:
        return None
    first, patch = patches.grid_size[0] * patches.grid_size[1], patches.patch_size
    side = math.isqrt(max(0, count := shapes[1][1] - (shapes[0][1] - first)))
    return (side * patch[0], side * patch[1]) if side and side**2 == count else None


def _bad_values(key: str, value: Tensor, expected: Tensor) -> str:
    """What is wrong with the numbers of a tensor, if anything; floats may have another width than expected."""
    if value.is_quantized or value.layout != torch.strided:
        fits = False
    elif value.dtype == expected.dtype or (value.is_floating_point() and expected.is_floating_point()):
        fits = True
    else:  # a count of batches may have another width, or be kept as a float
        counts = expected.dtype in _WHOLE and (value.dtype in _WHOLE or value.is_floating_point())
        fits = counts and torch.equal(value.to(expected.dtype).to(value.dtype), value)
    if not fits:
        stored = "quantized " * value.is_quantized or "sparse " * (value.layout != torch.strided)
        return f"holds {stored}{value.dtype}, expected {expected.dtype}"
    if not value.to(expected.dtype).isfinite().all():
        return "has values that are not finite"
    if key.endswith("running_var") and (value < 0).any():
        return "has negative values, and is a variance"
    return ""
