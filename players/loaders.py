"""Batches that others make: that they are what a network takes, and reading them changes nothing."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from zerosum.players.backbones import InputSpace
from zerosum.players.lazy import timm, torchvision
from zerosum.players.modes import Transform
from zerosum.players.probe import evaluating
from zerosum.players.reasons import first_line

_PACKAGES = {"torch": None, "hfds": "datasets", "hfids": "datasets", "wds": "webdataset", "tfds": "tensorflow_datasets"}


def is_named(source: str) -> bool:
    """Whether it is a data set by timm's name for it, and no folder that is there."""
    prefix, slash, _ = source.partition("/")
    return bool(slash) and prefix.lower() in _PACKAGES and not Path(source).expanduser().is_dir()


def named_data(source: str, root: str | Path | None, split: str, transform: Transform, channels: int) -> Dataset[Any]:
    """Pairs of (what ``transform`` makes of a picture, its label), by the name that :func:`timm.data.create_dataset`
    has for it; nothing is downloaded but by ``hfds/`` and ``hfids/``.

    Raises:
        ValueError: a package is missing, or there is no such data set here, or to be had.
    """
    prefix, _, name = source.partition("/")
    package = _PACKAGES[prefix.lower()]
    if package is not None and find_spec(package) is None:
        raise ValueError(f"data {source}: needs the package {package}; pip install {package.replace('_', '-')}")
    if prefix.lower() in ("torch", "wds") and root is None:
        raise ValueError(f"data {source}: --data-root has to say in which folder it lies")
    # Pictures as they are, for the transform knows more kinds; TensorFlow's have to be told.
    mode = "" if prefix.lower() != "tfds" else "L" if channels == 1 else "RGB"
    try:
        with redirect_stdout(io.StringIO()):  # advice on packages
            found: Any = timm.data.create_dataset(
                f"{prefix.lower()}/{name}",
                root=None if root is None else str(Path(root).expanduser()) if "://" not in str(root) else str(root),
                split=split,
                input_img_mode=mode,
                transform=transform,
            )
    except Exception as error:  # each data set's own, and each library's
        raise ValueError(f"data {source} (root {root}, split {split}): {first_line(error)}") from error
    if type(found) is torchvision.datasets.ImageFolder:
        raise ValueError(f"data {source}: give the folder itself, whose classes are then known by its folders' names")
    return found


def check_labels(labels: Tensor, classes: int, source: str = "data") -> None:
    """That labels (N,) are some of a network's classes.

    Raises:
        ValueError: they are no integers, or beyond.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"{source}: labels of shape {tuple(labels.shape)} and type {labels.dtype}; expected one integer an image"
        )
    if strange := labels[(labels < 0) | (labels >= classes)].tolist():
        raise ValueError(f"{source}: label {strange[0]}, and the network has {classes} classes (0 to {classes - 1})")


class InOrder(DataLoader[tuple[Tensor, Tensor]]):
    """Batches of a data set of pairs, or a list of them, in order; where it can only be read in a row, by no workers,
    each of which would read all of it.

    It draws a seed at each pass even so: its own, or measuring would change the game. What it gives is copied to a
    device while that computes.
    """

    def __init__(self, pairs: Dataset[Any] | list[Any], batch_size: int, workers: int = 0) -> None:
        workers = 0 if isinstance(pairs, IterableDataset) else workers
        pinned, own = torch.cuda.is_available(), torch.Generator()
        super().__init__(pairs, batch_size, num_workers=workers, generator=own, pin_memory=pinned)  # type: ignore[arg-type]  # a list serves too


class PictureLoader(InOrder):
    """The same of pictures, which are read as bytes: a quarter of what workers would have to send otherwise.
    They are normalised here, a batch at a time, on the network's ``device``.

    Args:
        pictures: pairs of (channels, height, width) uint8 and an int label.
        space: that they are normalised into.
    """

    def __init__(
        self, pictures: Dataset[Any], space: InputSpace, device: torch.device, batch_size: int, workers: int = 0
    ) -> None:
        super().__init__(pictures, batch_size, workers)
        self._space, self._device = space, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]  # it says of which class
        for images, labels in super().__iter__():
            yield self._space.normalised(images.to(self._device, non_blocking=True)), labels


@contextmanager
def drawn_alike() -> Iterator[None]:
    """For one pass over a loader: what it draws for its order comes each time the same, and is taken from nobody."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def number_of_batches(loader: DataLoader[Any]) -> int | None:
    """None where that is not known beforehand."""
    try:
        return len(loader) or None
    except TypeError:
        return None


@torch.no_grad()
def check_batches(loader: DataLoader[Any], network: nn.Module, space: InputSpace | None, source: str) -> None:
    """That the first one is what the network takes."""
    expected = "expected pairs of image tensors (N, channels, height, width) and int labels (N,)"
    try:
        with drawn_alike():
            batch = next(iter(loader))
    except StopIteration as error:
        raise ValueError(f"{source}: no images") from error
    except (TypeError, RuntimeError) as error:  # what putting a batch together raises
        raise ValueError(
            f"{source}: {first_line(error)}; {expected}; "
            "zerosum.players.data.evaluation_transform makes such of pictures"
        ) from error
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        parts = [type(part).__name__ for part in batch] if isinstance(batch, tuple | list) else type(batch).__name__
        raise ValueError(f"{source}: a batch is {parts}; {expected}")
    images, labels = batch
    like = next(network.parameters())
    if images.ndim != 4 or len(images) != len(labels) or images.dtype != like.dtype:
        raise ValueError(
            f"{source}: images of shape {tuple(images.shape)} and type {images.dtype} for {len(labels)} labels; "
            f"{expected}, {like.dtype} in normalised input space"
        )
    shape, wanted = tuple(images.shape[1:]), space and (space.channels, *space.size)
    try:
        if wanted not in (None, shape):
            raise RuntimeError(f"it takes {wanted}")
        with evaluating(network):
            logits = network(images[:1].to(like.device))
    except RuntimeError as error:
        raise ValueError(
            f"{source}: images of shape {shape}, which the network refuses: {first_line(error)}"
        ) from error
    check_labels(labels, logits.shape[-1], source)
