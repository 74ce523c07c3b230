"""Real images, for measuring only: nothing here is seen while players move."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.data import ImageNetInfo, create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale

from zerosum.players.backbones import InputSpace, input_space
from zerosum.players.probe import probe

Split = Literal["train", "held-out"]
Transform = Callable[[Image.Image], Tensor]


class Digits(Dataset[Any]):
    """scikit-learn's 1,797 handwritten digits, 8×8 grey: 1,257 for training, 540 held out, classes in equal shares."""

    def __init__(self, split: Split, transform: Transform) -> None:
        images, labels = load_digits(return_X_y=True)
        train, held_out = train_test_split(np.arange(len(labels)), test_size=540, random_state=0, stratify=labels)
        chosen = train if split == "train" else held_out
        self.pixels = np.rint(images[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        self.labels = labels[chosen]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def load_data(
    source: str, network: nn.Module, batch_size: int = 128, space: InputSpace | None = None
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of (images (N, channels, height, width), labels (N,) int64), as ``network`` wants its input.

    Args:
        source: ``"digits"`` for the held-out digits, or the path of an image folder: a folder for each class, in the
            alphabetical order of the network's classes. Where the folders are WordNet ids and the network has
            ImageNet's 1,000 classes, the ids give the classes.
        space: what the network takes; default: what its timm config says.

    Raises:
        FileNotFoundError: no such folder, or no images in it.
        ValueError: more classes than the network has, or no ``space`` and no timm config.
    """
    transform = evaluation_transform(network, space)
    classes = number_of_classes(network, space)
    if source == "digits":
        _check_classes(source, 10, classes)
        digits = Digits("held-out", transform)
        return _batches([digits[i] for i in range(len(digits))], batch_size)  # prepared once: they are small
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'data {source}: no such folder; expected "digits" or a folder with one folder a class')
    try:
        images = ImageFolder(str(folder), transform)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"data {source}: no images there; expected one folder a class with images in each"
        ) from error
    _check_classes(source, len(images.classes), classes)
    ids = ImageNetInfo().label_names()
    if classes == len(ids) and set(images.classes) <= set(ids):
        index = {wordnet_id: position for position, wordnet_id in enumerate(ids)}
        images.target_transform = lambda rank: index[images.classes[rank]]
    elif len(images.classes) < classes:
        warnings.warn(
            f"data {source}: {len(images.classes)} class folders for {classes} classes; they are taken for the first",
            stacklevel=2,
        )
    return _batches(images, batch_size)


def class_names(loader: DataLoader[Any]) -> dict[int, str]:
    """What an image folder calls each label that it has images of; nothing for other data."""
    images = loader.dataset
    if not isinstance(images, ImageFolder):
        return {}
    label_of = images.target_transform or int
    return {label_of(rank): name for rank, name in enumerate(images.classes)}


def number_of_classes(network: nn.Module, space: InputSpace | None) -> int:
    """What a timm network says, or how many logits another gives."""
    said: Any = getattr(network, "num_classes", None)
    return int(probe(network, space).shape[-1] if said is None else said)


def _check_classes(source: str, found: int, expected: int) -> None:
    if found > expected:
        raise ValueError(f"data {source}: {found} classes, and the network has {expected}")


def _batches(images: Dataset[Any] | list[Any], batch_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """In order. A loader draws a seed at each pass, even so: its own, or measuring would change the game."""
    return DataLoader(images, batch_size, generator=torch.Generator())  # type: ignore[arg-type]  # a list serves too


def evaluation_transform(network: nn.Module, space: InputSpace | None = None) -> Transform:
    """timm's evaluation preprocessing for the network; images are read as RGB, which some networks do not take.

    Args:
        space: what the network takes; default: what its timm config says, which also has how pictures are cut.

    Raises:
        ValueError: no ``space``, and no timm config.
    """
    channels, size, mean, std = space or input_space(network)
    config = resolve_model_data_config(network) | {"input_size": (channels, *size), "mean": mean, "std": std}
    transform = create_transform(**config, is_training=False)
    return Compose([Grayscale(), transform]) if channels == 1 else transform


def batch_that_fits(network: nn.Module, most: int = 128, space: InputSpace | None = None) -> int:
    """How many images to look at in one go: what a quarter of the free CUDA memory holds, or a GiB on the CPU.

    An image is taken to need four times the largest tensor that a layer makes of it.

    Args:
        space: what the network takes; default: what its timm config says.

    Raises:
        ValueError: no ``space``, and no timm config.
    """
    largest = 1
    device = next(network.parameters()).device

    def look(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    handles = [module.register_forward_hook(look) for module in network.modules()]
    try:
        probe(network, space)
    finally:
        for handle in handles:
            handle.remove()
    memory = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 2**30
    return max(1, min(most, memory // (4 * largest)))
