"""Trained networks by name: timm's, those that a folder or the hub describes, or what a factory makes; and what they
take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from zerosum.players.architectures import Architecture, check_timm_name, is_factory
from zerosum.players.fitting import load_weights
from zerosum.players.lazy import timm
from zerosum.players.pretrained import pretrained, published
from zerosum.players.spaces import InputSpace, check_space, input_space, say_space, says_space
from zerosum.players.weights import check_file, checkpoint_file

__all__ = ["Backbone", "InputSpace", "checkpoint_file", "find_backbone", "input_space", "load_backbone"]

_ASKED = {"num_classes": "--num-classes", "in_chans": "--input-size", "img_size": "--input-size"}


class Backbone(NamedTuple):
    """A network, and how it is built without its weights."""

    network: nn.Module
    architecture: Architecture


def find_backbone(
    name: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    device: torch.device | str = "cpu",
    *,
    args: Mapping[str, Any] | None = None,
    input_size: tuple[int, int, int] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    weights_key: str | None = None,
) -> Backbone:
    """A network in eval mode, on ``device``, and how it is built.

    It maps images (N, channels, height, width) to logits (N, num_classes). What it takes, :func:`input_space` says
    afterwards.

    Args:
        name: any name that timm knows, with or without a pretrained tag; ``cifar_resnet20``, ``32``, ``44``, ``56``,
            ``digits_resnet8`` and ``digits_vit`` of this package too; ``local-dir:PATH`` or ``hf-hub:ORG/NAME`` for
            what timm saved in a folder or in a repository of the hub; or ``package.module:factory`` for a callable that
            returns a module, which is imported and called.
        weights: None for timm's own pretrained weights (downloaded, or cached from an earlier download), for those in
            the folder or the repository, or for what the factory gives; the path of a checkpoint (safetensors, or a
            torch file of tensors: a state dict, alone or under ``state_dict``, ``model`` and the like, with or without
            the prefixes of wrappers); ``"package:NAME"`` for the one checkpoint in an installed Python package; or
            ``"random"``. Where a checkpoint shares no name with the network but has as many tensors, of the same shapes
            in the same order, they are taken in that order, with a warning.
        num_classes: None for what the name stands for (1,000 for most).
        args: further keywords for the network's constructor or for the factory: values that JSON knows.
        input_size: channels, height and width of the images that the weights were trained on, where the name stands
            for others; a network that is built for one size is built for this one.
        mean, std: of their pixel values in [0, 1], one for each channel or one for all; empty for what the name stands
            for.
        weights_key: which of several state dicts in the checkpoint, such as ``"state_dict_ema"``.

    Raises:
        ValueError: an unknown name, fewer than one class, weights that are damaged, not plain or finite tensors, of
            another kind of number or of another architecture, or a network without pretrained weights; a factory that
            cannot be imported or gives no module; an input that neither the name nor the options say.
        FileNotFoundError: no checkpoint or folder at the path, or no such package installed.
        ConnectionError: what the hub has is neither cached nor to be had within some ten seconds.
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"backbone {name!r} with {num_classes} classes: expected 1 or more (--num-classes)")
    make = _of_factory if is_factory(name) else _of_timm
    found = make(name, weights, weights_key, num_classes, dict(args or {}), (input_size, tuple(mean), tuple(std)))
    check_space(name, input_space(found.network))
    return found._replace(network=found.network.eval().to(device))


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    device: torch.device | str = "cpu",
    **given: Any,
) -> nn.Module:
    """The network of :func:`find_backbone`, which says what it may be given and what it raises."""
    return find_backbone(name, weights, num_classes, device, **given).network


_Asked = tuple[tuple[int, int, int] | None, tuple[float, ...], tuple[float, ...]]  # input size, mean, std


def _of_timm(
    name: str,
    weights: str | Path | None,
    key: str | None,
    num_classes: int | None,
    args: dict[str, Any],
    asked: _Asked,
) -> Backbone:
    if elsewhere := [f"{key} (say it with {_ASKED[key]})" for key in args if key in _ASKED]:
        raise ValueError(f"backbone {name!r}: --backbone-args does not take {', '.join(elsewhere)}")
    checkpoint = _checkpoint(weights)
    described = published(name)
    if described is None:
        check_timm_name(name)
    elif weights is None:
        checkpoint = described.checkpoint()
    own, known = (described.name, described.args) if described is not None else (name, {})
    known = known | args | ({} if num_classes is None else {"num_classes": num_classes})
    known |= _input_of_timm(own, known, asked)
    architecture = Architecture("timm", own, known)
    network = pretrained(own, known) if weights is None and checkpoint is None else architecture.build()
    _load(network, name, checkpoint, key)
    return Backbone(network, Architecture("timm", own, known | {"num_classes": network.num_classes}))


def _input_of_timm(name: str, args: Mapping[str, Any], asked: _Asked) -> dict[str, Any]:
    """The arguments that give a network of timm's, and its config, another input."""
    size, mean, std = asked
    config = args.get("pretrained_cfg") or (found.to_dict() if (found := timm.models.get_pretrained_cfg(name)) else {})
    channels = size[0] if size is not None else config.get("input_size", (3,))[0]
    overlay = {"input_size": size, "mean": _for_each(channels, mean), "std": _for_each(channels, std)}
    overlay = {key: value for key, value in overlay.items() if value}
    found_args: dict[str, Any] = {"pretrained_cfg_overlay": overlay} if overlay else {}
    if size is not None and (size[0] != config.get("input_size", (3,))[0] or "in_chans" in args):
        found_args["in_chans"] = size[0]
    if size is not None and config.get("fixed_input_size") and not args.get("dynamic_img_size"):
        found_args["img_size"] = size[1:]
    return found_args


def _of_factory(
    name: str,
    weights: str | Path | None,
    key: str | None,
    num_classes: int | None,
    args: dict[str, Any],
    asked: _Asked,
) -> Backbone:
    if num_classes is not None:
        raise ValueError(
            f"backbone {name}: --num-classes is for timm's; say it with --backbone-args, as {name} calls it"
        )
    if str(weights) == "random":
        raise ValueError(f"backbone {name}: without --weights, the network is as {name} gives it; random is for timm's")
    checkpoint = _checkpoint(weights)
    architecture = Architecture("factory", name, args)
    network = architecture.build()
    _load(network, name, checkpoint, key)
    says = says_space(network)
    size, mean, std = asked
    missing = [option for option, value in zip(("--input-size", "--mean", "--std"), asked, strict=True) if not value]
    if missing and not says:
        raise ValueError(f"backbone {name} does not say what input it takes; give {', '.join(missing)}")
    if len(missing) < 3:
        channels, sides, own_mean, own_std = input_space(network) if says else InputSpace(0, (0, 0), (), ())
        channels, sides = (size[0], size[1:]) if size is not None else (channels, sides)
        mean, std = (_for_each(channels, values) for values in (mean or own_mean, std or own_std))
        say_space(network, InputSpace(channels, sides, mean, std))
    return Backbone(network, architecture)


def _for_each(channels: int, values: tuple[float, ...]) -> tuple[float, ...]:
    """One number for each channel, where one is given for all."""
    return values * channels if len(values) == 1 else values


def _checkpoint(weights: str | Path | None) -> Path | None:
    if weights is None or str(weights) == "random":
        return None
    check_file(path := checkpoint_file(weights))
    return path


def _load(network: nn.Module, name: str, checkpoint: Path | None, key: str | None) -> None:
    if checkpoint is not None:
        load_weights(network, name, checkpoint, key)
    elif key is not None:
        raise ValueError(f"--weights-key {key}: no file is read that it could choose in; give --weights PATH")
