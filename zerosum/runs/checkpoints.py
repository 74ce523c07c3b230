"""Checkpoints in a run's folder: files that are there whole or not at all, and by which damage can be told.

``checkpoints/00000500-1a2b3c4d5e6f7081.pt`` is the state of a match after round 500; behind the round stands the
SHA-256 of the file's content. Beside the first and the newest there is ``best-…``, the one that was measured best.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zerosum.runs.files import write_whole

FOLDER = "checkpoints"
_BEST = "best-"
_DIGITS = 16  # of the checksum


class Damaged(ValueError):
    """A checkpoint's content is not what was written."""


def save(folder: Path, state: Mapping[str, Any], best: bool = False) -> Path:
    """Write a match's state beside those that are there: aside, flushed to the disk, then put in its place.

    Raises:
        OSError: it cannot be written; nothing is left of the try.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    (folder / FOLDER).mkdir(exist_ok=True)
    name = f"{_BEST if best else ''}{state['round']:08d}-{_checksum(content)}.pt"
    path = folder / FOLDER / name
    write_whole(path, content)
    if best:
        for other in _found(folder, _BEST):
            if other != path:
                other.unlink()
    return path


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest round first, without the best."""
    return _found(folder, "")


def load(path: Path) -> dict[str, Any]:
    """A state that was saved, its tensors on the CPU. Runs no code from the file.

    Raises:
        Damaged: the content is not what was written, or cannot be read.
    """
    try:
        content = path.read_bytes()
        if _checksum(content) != path.stem.rpartition("-")[2]:
            raise Damaged(f"{path} is damaged: its checksum is another")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # of many types, by what is in the file
        raise Damaged(f"{path} is damaged and cannot be loaded ({type(error).__name__})") from error
    return state


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[Damaged]]:
    """The newest state that is whole, None where there are no checkpoints, and what was found damaged on the way to it.

    Raises:
        Damaged: all are; the newest is named.
    """
    damaged: list[Damaged] = []
    for path in reversed(saved(folder)):
        try:
            return load(path), damaged
        except Damaged as error:
            damaged.append(error)
    if damaged:
        raise damaged[0]
    return None, damaged


def prune(folder: Path, keep: int) -> None:
    """Leave the first, the newest ``keep``, and the best; and nothing of writes that broke off."""
    for path in (folder / FOLDER).glob("*.part"):
        path.unlink()
    for path in saved(folder)[1:-keep]:
        path.unlink()


def drop_after(folder: Path, round: int, but: Path) -> None:
    """Remove those of this round and of later ones, except one; a match that was put back left them."""
    for path in saved(folder):
        if path != but and _round(path) >= round:
            path.unlink()


def _found(folder: Path, prefix: str) -> list[Path]:
    return sorted(
        (folder / FOLDER).glob(f"{prefix}[0-9]*-*.pt"), key=lambda path: (_round(path), path.stat().st_mtime_ns)
    )


def _round(path: Path) -> int:
    return int(path.name.removeprefix(_BEST).partition("-")[0])


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
