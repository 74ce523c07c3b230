"""What a network takes, and what its classes are called: as it says itself, or as it was told to say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zerosum.players.lazy import timm

_PIXELS = 0.45, 0.25  # mean and deviation in photographs, of pixels in 0 to 1
_ABOUT = 2.5
_SPACE, _LABELS = "input_space", "label_names"  # attributes; timm's networks have a config instead


class InputSpace(NamedTuple):
    """What a network takes: images of (channels, *size), pixel values (in [0, 1]) minus ``mean``, over ``std``."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, pictures: Tensor) -> Tensor:
        """Pictures of bytes, (…, channels, height, width) uint8, as the network takes them, float32 on their device."""
        mean, std = (torch.tensor(of, device=pictures.device).view(-1, 1, 1) for of in (self.mean, self.std))
        return pictures.float().div_(255).sub_(mean).div_(std)


def input_space(network: nn.Module) -> InputSpace:
    """The input that a network of :func:`load_backbone`, of a run, or of timm was trained for.

    It is what the network's attribute ``input_space`` says, or else timm's data config (``pretrained_cfg``).

    Raises:
        ValueError: the network has neither.
    """
    if isinstance(said := getattr(network, _SPACE, None), InputSpace):
        return said
    if not says_space(network):
        raise ValueError(
            f"{type(network).__name__} does not say what input it takes (timm's pretrained_cfg); "
            "give space=InputSpace(…)"
        )
    config = timm.data.resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    return InputSpace(channels, (height, width), tuple(config["mean"]), tuple(config["std"]))


def says_space(network: nn.Module) -> bool:
    """Whether :func:`input_space` has an answer."""
    return isinstance(getattr(network, _SPACE, None), InputSpace) or bool(getattr(network, "pretrained_cfg", None))


def label_names(network: nn.Module) -> tuple[str, ...] | None:
    """What the network's classes are called, in their order: as its attribute ``label_names``, or else timm's config,
    says; None where neither names them all."""
    said = said_names(network)
    if isinstance(said, Mapping):
        names = {str(place): name for place, name in said.items()}
        said = [names.get(str(place)) for place in range(len(names))]
    named = isinstance(said, list | tuple) and bool(said) and all(isinstance(name, str) for name in said)
    classes = getattr(network, "num_classes", None)
    return tuple(said) if named and (not isinstance(classes, int) or len(said) == classes) else None


def said_names(network: nn.Module) -> Any:
    """The same as it is said: a sequence, or a mapping by label that may leave some out; None where nothing is."""
    return getattr(network, _LABELS, None) or (getattr(network, "pretrained_cfg", None) or {}).get(_LABELS)


def say_space(network: nn.Module, space: InputSpace, names: Sequence[str] | None = None) -> None:
    """Let :func:`input_space` and :func:`label_names` find this on the network, by attributes of their names."""
    setattr(network, _SPACE, space)
    if names is not None:
        setattr(network, _LABELS, tuple(names))


def image_moments(space: InputSpace) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of each channel of photographs in this space; None where they are about 0 and 1, as
    the normalisation is there to make them."""
    shifts = tuple((_PIXELS[0] - mean) / std for mean, std in zip(space.mean, space.std, strict=True))
    scales = tuple(_PIXELS[1] / std for std in space.std)
    if all(1 / _ABOUT <= scale <= _ABOUT and abs(shift) <= 1 for shift, scale in zip(shifts, scales, strict=True)):
        return None
    return shifts, scales


def check_space(name: str, space: InputSpace) -> None:
    """That a network called ``name`` can be fed so.

    Raises:
        ValueError: not one number for each channel, or numbers that make no sense; the message has the option.
    """
    if min(space.channels, *space.size) < 1:
        raise ValueError(f"backbone {name}: --input-size {space.channels} {space.size}: expected 1 or more of each")
    for option, values in (("--mean", space.mean), ("--std", space.std)):
        if len(values) != space.channels or not all(map(math.isfinite, values)):
            raise ValueError(
                f"backbone {name} takes {space.channels} channels and has {option} {' '.join(map(str, values))}; give "
                f"{option} with one number for each channel, or one for all"
            )
    if min(space.std) <= 0:
        raise ValueError(f"backbone {name}: --std {' '.join(map(str, space.std))}: expected numbers above 0")
