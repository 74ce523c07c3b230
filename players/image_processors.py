"""What networks of the transformers library take, as their config and their image processor's say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from zerosum.players.lazy import huggingface_hub
from zerosum.players.spaces import InputSpace

_FILE = "preprocessor_config.json"


def processed_space(network: nn.Module) -> InputSpace | None:
    """What a transformers network takes, where the file of its image processor lies beside its own, in a folder or in
    the hub's cache; None of other networks, and where it does not."""
    config: Any = getattr(network, "config", None)
    name = getattr(config, "_name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    found = Path(name) / _FILE if Path(name).is_dir() else _cached(name)
    try:
        said = json.loads(Path(found).read_text(encoding="utf-8")) if found is not None else {}
        size = getattr(config, "image_size", None) or _size(said)
        height, width = size if isinstance(size, tuple | list) else (size, size)
        mean, std = tuple(map(float, said["image_mean"])), tuple(map(float, said["image_std"]))
        return InputSpace(getattr(config, "num_channels", len(mean)), (int(height), int(width)), mean, std)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cached(name: str) -> str | None:
    try:
        found = huggingface_hub.try_to_load_from_cache(name, _FILE)
    except ValueError:  # no name of a repository
        return None
    return found if isinstance(found, str) else None


def _size(said: Mapping[str, Any]) -> Any:
    """Height and width, or one for both, that pictures are cut to, or else scaled to."""
    size = said.get("crop_size") if said.get("do_center_crop") else None
    size = size or said.get("size")
    if not isinstance(size, Mapping):
        return size
    return (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
