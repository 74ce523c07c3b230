"""The files and folders that a run reads, and by which content it knows them again."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerosum.runs.messages import flag

_CHUNK = 2**20  # bytes


def expand(path: str | Path) -> Path:
    """The path, ``~`` at its start replaced by the home directory, where there is one."""
    return Path(os.path.expanduser(path))


def describe(inputs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """For config.json: of each its absolute path and what :func:`content` says of it."""
    return {name: {"path": str(path.absolute())} | content(path) for name, path in inputs.items()}


def content(path: Path) -> dict[str, Any]:
    """SHA-256 and size of a file; of a folder the number and size of its files, and the SHA-256 of their relative names
    and sizes, which is cheap. A checksum of None where there is neither.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return {"sha256": checksum(path), "bytes": path.stat().st_size}
    if not path.is_dir():
        return {"sha256": None}
    sizes = {
        os.path.relpath(found := os.path.join(folder, name), path): os.stat(found).st_size
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
        if os.path.exists(os.path.join(folder, name))  # no link that leads nowhere
    }
    digest = hashlib.sha256()
    for name in sorted(sizes):
        digest.update(os.fsencode(name) + f"\0{sizes[name]}\n".encode())
    return {"sha256": digest.hexdigest(), "files": len(sizes), "bytes": sum(sizes.values())}


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check(kept: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, Path]) -> None:
    """That a run finds the content again that it was started with, wherever that is now.

    Raises:
        ValueError: something is gone or has changed; the message says what.
        OSError: a file cannot be read.
    """
    for name, before in kept.items():
        option = flag(name)
        path = inputs.get(name, Path(before["path"]))
        now = content(path)
        if now["sha256"] is None and before["sha256"] is not None:
            raise ValueError(f"{option} {path}: it is gone; if it was moved, give its new place with {option}")
        if now["sha256"] != before["sha256"]:
            raise ValueError(
                f"{option} {path} is not what the run was started with ({_in_words(now)} now, {_in_words(before)} "
                f"then); put that back, or give it with {option}"
            )


def _in_words(content: Mapping[str, Any]) -> str:
    if content["sha256"] is None:
        return "nothing"
    files = f"{content['files']} files, " if "files" in content else ""
    return f"{files}{content['bytes']} bytes, SHA-256 {content['sha256'][:12]}…"
