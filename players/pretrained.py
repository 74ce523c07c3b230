"""Networks that others trained: timm's own by name, and those that a folder or the hub describes as timm does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from zerosum.players.architectures import check_timm_name
from zerosum.players.lazy import huggingface_hub, timm
from zerosum.players.reasons import first_line
from zerosum.players.weights import checkpoints_in

_HUB_TIMEOUT = 10.0  # seconds until the hub counts as out of reach
_CONFIG = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load")
_LOCAL, _HUB = "local-dir:", "hf-hub:"


class Published(NamedTuple):
    """A network that a ``config.json`` of timm's describes: timm's name, arguments, and where its weights are."""

    name: str
    args: dict[str, Any]
    checkpoint: Callable[[], Path]


def published(name: str) -> Published | None:
    """What ``local-dir:PATH`` or ``hf-hub:ORG/NAME`` (``@REVISION`` behind it) stands for; None of another name.

    Nothing is imported or run that the folder holds, and nothing is fetched that is cached.

    Raises:
        FileNotFoundError: no such folder, or no ``config.json`` or checkpoint in it.
        ValueError: a ``config.json`` that does not describe a network of timm's; several checkpoints.
        ConnectionError: the hub is out of reach, or has no such network, and none is cached.
    """
    folder = local_folder(name)
    if folder is not None:
        if not (folder / _CONFIG).is_file():
            raise FileNotFoundError(
                f"backbone {name}: expected a folder with {_CONFIG} as timm's save_for_hf writes it"
            )
        return Published(*_described(name, folder / _CONFIG), lambda: local_checkpoint(folder))
    if not name.startswith(_HUB):
        return None
    return Published(*_described(name, _from_hub(name, (_CONFIG,))), lambda: _from_hub(name, _FILES))


def local_folder(name: str) -> Path | None:
    """That of ``local-dir:PATH``."""
    return Path(name.removeprefix(_LOCAL)).expanduser() if name.startswith(_LOCAL) else None


def local_config(folder: Path) -> Path:
    """What describes the network in a folder."""
    return folder / _CONFIG


def local_checkpoint(folder: Path) -> Path:
    """The weights in a folder: under a name that timm gives them, or else its one checkpoint.

    Raises:
        FileNotFoundError, ValueError: none; several.
    """
    usual = [folder / file for file in _FILES if (folder / file).is_file()]
    found = usual or (checkpoints_in(folder) if folder.is_dir() else [])
    if not found:
        raise FileNotFoundError(f"{folder}: no checkpoint there; expected {' or '.join(_FILES)}")
    if not usual and len(found) > 1:
        raise ValueError(f"{folder}: {len(found)} checkpoints there; give one with --weights")
    return found[0]


def pretrained(name: str, args: dict[str, Any]) -> nn.Module:
    """A network with timm's own weights, as they are: none is drawn, dropped or cut to another number of classes or
    channels.

    Raises:
        ValueError: timm has none, or of another number of classes or channels.
        ConnectionError: neither cached nor to be had within some ten seconds.
    """
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"backbone {name!r} has no pretrained weights in timm; give --weights PATH or --weights random"
        )
    for option, asked, own in (
        ("--num-classes", args.get("num_classes"), config.num_classes),
        ("--input-size", args.get("in_chans"), config.input_size[0]),
    ):
        if asked is not None and asked != own:
            what = "classes" if option == "--num-classes" else "channels"
            raise ValueError(
                f"backbone {name!r} with {option} {asked} …: timm's weights have {own} {what}; give --weights PATH"
            )
    if config.hf_hub_id and not config.file and _cached(config.hf_hub_id, _FILES) is None:
        _check_hub(name)
    try:
        return timm.create_model(name, pretrained=True, **args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"backbone {name!r}: timm cannot build it so: {first_line(error)}") from error
    except (OSError, RuntimeError) as error:  # the hub's client and timm raise either, by version
        raise ConnectionError(f"pretrained weights of {name!r} could not be loaded: {first_line(error)}") from error


def _described(name: str, path: Path) -> tuple[str, dict[str, Any]]:
    """timm's name and arguments in a ``config.json``, of which none says where weights lie."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        config = dict(found.get("pretrained_cfg", found))  # once all in one
        architecture, args = found["architecture"], dict(found.get("model_args") or {})
        names = found.get("label_names") or config.get("label_names") or found.get("labels")
        classes = found.get("num_classes", config.get("num_classes"))
        size = list(config.get("input_size", (3, 224, 224)))
        size[0] = args.get("in_chans", size[0])
        if config.get("fixed_input_size") and args.get("img_size"):
            sides = args["img_size"]
            size[1:] = [sides, sides] if isinstance(sides, int) else sides
        if not all(isinstance(side, int) and side > 0 for side in size) or len(size) != 3:
            raise ValueError(f"input_size {size}")
        known = timm.models.PretrainedCfg.__dataclass_fields__.keys() - set(_SOURCES)
        kept = {key: value for key, value in config.items() if key in known}
        check_timm_name(architecture)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"backbone {name}: {path} does not describe a network of timm's: {first_line(error)}"
        ) from error
    kept |= {"architecture": architecture, "input_size": size, "num_classes": classes, "label_names": names}
    kept = {key: value for key, value in kept.items() if value is not None}
    return architecture, args | {"num_classes": classes, "in_chans": size[0], "pretrained_cfg": kept}


def _from_hub(name: str, files: tuple[str, ...]) -> Path:
    """The first of the files in the hub's repository, from the cache where it is there."""
    repository, _, revision = name.removeprefix(_HUB).partition("@")
    if (cached := _cached(repository, files, revision)) is not None:
        return cached
    _check_hub(name)
    reasons = []
    for file in files:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
        except Exception as error:  # requests' or httpx's, by version, or the hub's own
            reasons.append(f"{file}: {first_line(error)}")
    raise ConnectionError(f"backbone {name}: the hub did not give {'; '.join(reasons)}")


def _cached(repository: str, files: tuple[str, ...], revision: str = "") -> Path | None:
    """The first of the files that was fetched before."""
    found = [huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _check_hub(name: str) -> None:
    """Ask once, briefly: timm's own download retries for minutes before it gives up."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception as error:  # requests or httpx, by the version of huggingface_hub
        raise ConnectionError(
            f"pretrained weights of {name!r}: no connection to {huggingface_hub.constants.ENDPOINT} "
            f"({type(error).__name__}), and none cached; give --weights PATH or --weights random"
        ) from error
