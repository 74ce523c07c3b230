"""Real images, for measuring only: nothing here is seen while players move."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zerosum.players.lazy import timm, torchvision
from zerosum.players.loaders import InOrder, PictureLoader, check_batches, is_named, named_data
from zerosum.players.memory import spare_memory
from zerosum.players.modes import MODES, Transform, to_mode
from zerosum.players.probe import probe
from zerosum.players.spaces import InputSpace, input_space, said_names

Split = Literal["train", "held-out"]


class Digits(Dataset[Any]):
    """scikit-learn's 1,797 handwritten digits, 8×8 grey: 1,257 for training, 540 held out, classes in equal shares."""

    def __init__(self, split: Split, transform: Transform) -> None:
        # Here, for it takes most of a second that no other data need.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

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


def own_data(backbone: str | None) -> str | None:
    """What to measure a network on, by its name, that came into this package with it; None of all others."""
    return "digits" if backbone in ("digits_resnet8", "digits_vit") else None


def load_data(
    source: str | Path | DataLoader[Any] | Dataset[Any],
    network: nn.Module,
    batch_size: int = 128,
    space: InputSpace | None = None,
    *,
    names: Sequence[str] | None = None,
    workers: int = 0,
    root: str | Path | None = None,
    split: str = "validation",
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of (images (N, channels, height, width), labels (N,) int64), as ``network`` wants its input; pictures
    of files come on its device.

    Args:
        source: what to read.

            - ``"digits"``: the held-out digits.
            - The path of an image folder, with a folder for each class. Folders that are named after classes of the
              network (``names``), after ImageNet's WordNet ids, or by the classes' indices are those; others are taken
              in natural order, with a warning where that leaves doubt. Pictures of any kind come as the network has
              channels (1, 3 or 4): alpha is left off or added, 16-bit grey scaled; EXIF's rotation is not applied.
            - A data set by the name that :func:`timm.data.create_dataset` has for it: ``torch/``, ``hfds/``,
              ``hfids/``, ``wds/`` or ``tfds/`` and a name.
            - A data set of pairs (image in the network's normalised input space, int label).
            - A loader of batches of such, which is used as it is. It has to give the same at each pass.
        space: what the network takes; default: what its timm config says.
        names: of an image folder, what the network calls its classes; default: what its timm config says.
        workers: processes that prepare images beside this one; of data sets that are read in a row, none. They pay
            where preparing takes longer than the network: of large pictures, or on a GPU. Nothing else changes.
        root: of a data set by name, the folder that it lies in, or that is to be its cache.
        split: of a data set by name, which part of it.

    Raises:
        FileNotFoundError: no such folder, no images in it, or none in one of its class folders.
        ValueError: more classes than the network has; folders of which only some are named after its classes; other
            batches than those above; a data set that cannot be had, or wants a package that is missing; or no ``space``
            and no timm config. While images are read: a file that is damaged, or not known.
    """
    from zerosum.players.folders import ClassFolders, check_classes  # of torchvision's, which takes its time

    if not isinstance(source, str | Path):
        loader = source if isinstance(source, DataLoader) else InOrder(source, batch_size, workers)
        check_batches(loader, network, space, "data")
        return loader
    source, to_size, taken = str(source), _to_size(network, space), space or input_space(network)
    device = next(network.parameters()).device
    if is_named(source):
        pictures = named_data(source, root, split, to_size, taken.channels)
        loader = PictureLoader(pictures, taken, device, batch_size, workers)
        check_batches(loader, network, space, f"data {source}")
        return loader
    classes = number_of_classes(network, space)
    if source == "digits":
        check_classes(source, 10, classes)
        digits = Digits("held-out", evaluation_transform(network, space))
        return InOrder([digits[i] for i in range(len(digits))], batch_size)  # prepared once: they are small
    folders = ClassFolders(source, classes, _names(network, classes, names), to_size, MODES[taken.channels])
    for note in folders.notes:
        warnings.warn(f"data {source}: {note}", stacklevel=2)
    return PictureLoader(folders, taken, device, batch_size, workers)


def class_names(loader: DataLoader[Any]) -> dict[int, str]:
    """What an image folder calls each label that it has images of; nothing for other data."""
    from zerosum.players.folders import ClassFolders

    images = loader.dataset
    return {label: name for name, label in images.class_to_idx.items()} if isinstance(images, ClassFolders) else {}


def number_of_classes(network: nn.Module, space: InputSpace | None) -> int:
    """What a timm network says, or how many logits another gives."""
    said: Any = getattr(network, "num_classes", None)
    return int(probe(network, space).shape[-1] if said is None else said)


def _names(network: nn.Module, classes: int, names: Sequence[str] | None) -> dict[int, str]:
    """By label: those given, or the ones that the network says, unless they are of another number of classes."""
    if names is not None:
        if len(names) != classes:
            raise ValueError(f"data: {len(names)} names, and the network has {classes} classes; give one for each")
        return dict(enumerate(names))
    said = said_names(network) or ()
    if isinstance(said, Mapping):  # sparse, its keys texts where they were read from a file
        found = {int(label): str(name) for label, name in said.items()}
        return found if max(found) < classes else {}
    return dict(enumerate(said)) if len(said) == classes else {}


def evaluation_transform(network: nn.Module, space: InputSpace | None = None) -> Transform:
    """timm's evaluation preprocessing for the network, of pictures of any kind (:func:`modes.to_mode`); those that
    have its size already are neither scaled nor cut.

    Args:
        space: what the network takes; default: what its timm config says, which also has how pictures are cut.

    Raises:
        ValueError: no ``space``, and no timm config; or no pictures have so many channels.
    """
    return torchvision.transforms.Compose([_to_size(network, space), (space or input_space(network)).normalised])


def _to_size(network: nn.Module, space: InputSpace | None) -> Transform:
    """The same without normalisation: bytes, (channels, height, width) uint8."""
    channels, size, mean, std = space or input_space(network)
    if channels not in MODES or not {len(mean), len(std)} <= {1, channels}:
        raise ValueError(
            f"an input of {channels} channels, {len(mean)} means and {len(std)} deviations: pictures have 1, 3 or 4, "
            "and one of each for every channel; of other data, give a loader of tensors"
        )
    config = timm.data.resolve_model_data_config(network) | {"input_size": (channels, *size), "mean": mean, "std": std}
    cut, whole = (
        timm.data.create_transform(**config | changes, normalize=False) for changes in ({}, {"crop_pct": 1.0})
    )
    return torchvision.transforms.Compose(
        [partial(to_mode, mode=MODES[channels]), partial(_cut, size=size[::-1], cut=cut, whole=whole)]
    )


def _cut(picture: Image.Image, size: tuple[int, int], cut: Transform, whole: Transform) -> Tensor:
    """Where nothing says otherwise, timm scales a picture to 1/0.875 of the size before it cuts that out of it, which
    is for photographs, and not for small pictures that are of the size."""
    return (whole if picture.size == size else cut)(picture)


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
    return max(1, min(most, spare_memory(device) // (4 * largest)))
