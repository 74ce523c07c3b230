"""Images in folders, one folder a class: which class each folder is of."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from timm.data import ImageNetInfo, infer_imagenet_subset
from torchvision.datasets import DatasetFolder

from zerosum.players.modes import Transform, to_mode
from zerosum.players.reasons import first_line

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga"),
)
_READ = {suffix: kind for suffix, kind in Image.registered_extensions().items() if suffix in _SUFFIXES}
_SHOWN = 3  # names in a message


class UnreadableImage(OSError, ValueError):
    """A file of the images' folder that cannot be used; the message names it.

    Bad input before the first round; after it, as with any file that was there, the run can go on once it is again.
    """

    def __init__(self, message: str) -> None:
        # Out of a worker process comes its traceback; the last line ends in what was said.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2])


class ClassFolders(DatasetFolder):  # type: ignore[misc]  # torchvision has no types
    """Pairs of (what ``transform`` makes of a picture, its label), in a folder with one folder a class.

    Files are searched at any depth; what is hidden (``.ipynb_checkpoints``) does not count. Several frames or pages
    count as their first. EXIF's rotation is not applied: neither timm nor torchvision do, with which networks are
    trained.

    Attributes:
        class_to_idx: the label of each class folder, as :func:`labels_of` has it.
        notes: what its user should know, in a line each.

    Args:
        classes: how many the network has.
        names: what the network calls its classes, by label; empty where it does not say.
        mode: Pillow's, of the pictures that ``transform`` is given (:func:`to_mode`).

    Raises:
        FileNotFoundError: no such folder, no images in it, or none in one of its class folders.
        ValueError: more class folders than classes, or names of which only some are the network's.
        UnreadableImage: when an item is taken that is damaged, or of a kind that is not known.
    """

    def __init__(self, source: str, classes: int, names: Mapping[int, str], transform: Transform, mode: str) -> None:
        self._source, self._classes, self._names = source, classes, names
        self._left_out: Counter[str] = Counter()
        self.notes: list[str] = []
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f'data {source}: no such folder; expected "digits", a folder with one folder a class, or a data set by '
                "timm's name for it, such as torch/cifar10"
            )
        opened = partial(_open, mode=mode)
        super().__init__(str(folder), opened, transform=transform, is_valid_file=self._is_image, allow_empty=True)
        filled = set(self.targets)
        empty = [name for name in self.classes if self.class_to_idx[name] not in filled]
        if len(empty) == len(self.classes):
            raise FileNotFoundError(f"data {source}: no images there; expected some in each of its class folders")
        if empty:
            raise FileNotFoundError(
                f"data {source}: no images in the class folder {_some(empty)}; remove it, or fill it"
            )
        if self._left_out:
            kinds = _some([suffix or "none" for suffix in self._left_out])
            self.notes.append(f"{self._left_out.total()} files are left out for their suffix ({kinds})")

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The class folders in natural order, and the label of each."""
        with os.scandir(directory) as entries:
            found = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
        folders = sorted((name for name, is_folder in found.items() if is_folder), key=_natural)
        loose = [name for name, is_folder in found.items() if not is_folder and _suffix(name) in _READ]
        if not folders:
            beside = f", but {len(loose)} images" if loose else ""
            raise FileNotFoundError(
                f"data {self._source}: no images there in class folders{beside}; expected one folder a class"
            )
        if loose:
            self.notes.append(f"{len(loose)} images are left out, which lie in no class folder ({_some(loose)})")
        check_classes(self._source, len(folders), self._classes)
        labels, note = labels_of(folders, self._classes, self._names, self._source)
        self.notes += [note] if note else []
        return folders, labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        try:
            return super().__getitem__(index)
        except Exception as error:  # one type for each way in which a file can be bad
            unknown = isinstance(error, UnidentifiedImageError)
            why = "no picture of a kind that is known" if unknown else first_line(error)
            raise UnreadableImage(f"data {self.samples[index][0]}: {why}; mend it, or remove it") from error

    def _is_image(self, path: str) -> bool:
        if any(part.startswith(".") for part in Path(path).relative_to(self.root).parts):
            return False
        known = _suffix(path) in _READ
        self._left_out.update([] if known else [_suffix(path)])
        return known


def labels_of(
    folders: Sequence[str], classes: int, names: Mapping[int, str], source: str
) -> tuple[dict[str, int], str]:
    """The label of each class folder, and what its user should know of that, if anything.

    Folders are the classes that they are named after, by the network's own names, or by WordNet ids where the network
    has as many classes as ImageNet, or one of its larger kinds. Otherwise numbers are labels, if all are some of the
    network's; and if not, the folders are its first classes, in the order given.

    Raises:
        ValueError: some folders are named after classes of the network, and others are not.
    """
    subset = infer_imagenet_subset({"num_classes": classes})
    for known in (names, dict(enumerate(ImageNetInfo(subset).label_names())) if subset else {}):
        times = Counter(known.values())
        label = {name: index for index, name in known.items() if times[name] == 1}
        strange = [folder for folder in folders if folder not in label]
        if not strange:
            return {folder: label[folder] for folder in folders}, ""
        if len(strange) < len(folders):
            raise ValueError(
                f"data {source}: folders that are not named after one class of the network each, as others are: "
                f"{_some(strange)}; rename or remove them"
            )
    numbers = {folder: int(folder) for folder in folders if folder.isdecimal()}
    if len(set(numbers.values())) == len(folders) and max(numbers.values()) < classes:
        return numbers, ""
    note = ""
    if len(folders) < classes:
        note = f"{len(folders)} class folders for {classes} classes; they are taken for the first, in natural order"
    elif list(folders) != sorted(folders):
        note = "class folders are taken in natural order (2 before 10), which is not torchvision's"
    advice = f"; their classes' indices as names (0 to {classes - 1}) would say which they are"
    return {folder: index for index, folder in enumerate(folders)}, note and note + advice


def check_classes(source: str, found: int, expected: int) -> None:
    """That a network of ``expected`` classes has as many as there are images of.

    Raises:
        ValueError: it has fewer.
    """
    if found > expected:
        raise ValueError(f"data {source}: {found} classes, and the network has {expected}")


def _open(path: str, mode: str) -> Image.Image:
    with open(path, "rb") as file:  # formats: a suffix does not bind Pillow, and some kinds are run rather than read
        return to_mode(Image.open(file, formats=sorted(set(_READ.values()))), mode)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _natural(name: str) -> tuple[list[Any], str]:
    """Numbers by their value, letters without regard to case, as timm has it (whose function fails for ``²``)."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)], name


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
