"""A run's folder: what made the run, and what it left behind."""

import dataclasses
import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from zerosum.checkpoints import write_whole

CONFIG, SUMMARY, METRICS, GAME, LOCK = "config.json", "summary.json", "metrics.jsonl", "game.png", ".lock"
_KEYS = {"recipe", "device", "options", "versions", "git_commit", "command", "threads", "resumed"}
_PACKAGES = ("zerosum", "torch", "torchvision", "timm", "numpy")


def check_free(folder: Path) -> None:
    """That a run may write into ``folder``.

    Raises:
        FileExistsError: it is a file, or holds something already.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out {folder}: there is a file of that name; name a new folder")
    # What a process left that was killed before it had begun counts for nothing.
    if folder.is_dir() and any(not path.name.endswith(".part") for path in folder.iterdir()):
        what = "another run" if (folder / CONFIG).exists() else "files already"
        raise FileExistsError(
            f"--out {folder}: the folder holds {what}; name a new one, or continue a run with --resume {folder}"
        )


def write_config(folder: Path, recipe: str, options: Any, arguments: Sequence[str]) -> None:
    """Make the folder, and write what makes the run: recipe, resolved options, versions, git commit, command."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / CONFIG,
        {
            "recipe": recipe,
            "device": str(options.torch_device),
            "options": dataclasses.asdict(options),
            "versions": _versions(),
            "git_commit": _git_commit(),
            "command": command(arguments),
            "threads": torch.get_num_threads(),
            "resumed": [],
        },
    )


def hold(folder: Path) -> AbstractContextManager[Any]:
    """Keep other processes from playing the run in ``folder``, from now to the end of the context or of this process.

    Raises:
        ValueError: one is playing it.
    """
    try:
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{folder}: another process is playing that run") from error


def note_resumption(folder: Path, arguments: Sequence[str]) -> None:
    """Add to config.json by what command and with which versions the run goes on."""
    config = read_config(folder)
    config["resumed"].append({"command": command(arguments), "versions": _versions(), "git_commit": _git_commit()})
    write_json(folder / CONFIG, config)


def command(arguments: Sequence[str]) -> str:
    """The line that runs zerosum with these arguments."""
    return shlex.join([Path(sys.executable).name, "-m", "zerosum.run", *arguments])


def read_config(folder: Path) -> dict[str, Any]:
    """All that :func:`write_config` wrote, and every resumption.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its config.json cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: no run there (no {CONFIG})")
    try:
        config = dict(json.loads((folder / CONFIG).read_text()))
        if missing := _KEYS - config.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read ({error})") from error
    return config


def read_summary(folder: Path) -> dict[str, Any]:
    """What the finished run in ``folder`` came to.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: its summary.json cannot be read.
    """
    if not (folder / SUMMARY).is_file():
        unfinished = (folder / CONFIG).is_file()
        what = f"that run is not finished; go on with --resume {folder}" if unfinished else f"no run (no {SUMMARY})"
        raise FileNotFoundError(f"{folder}: {what}")
    try:
        return dict(json.loads((folder / SUMMARY).read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / SUMMARY} cannot be read ({error})") from error


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the unfinished run in ``folder``, as its config.json holds them.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its config.json cannot be read, or the run is finished.
    """
    options = read_config(folder)["options"]
    if (folder / SUMMARY).exists():
        raise ValueError(f"--resume {folder}: that run is finished; its figures are in {folder / SUMMARY}")
    return dict(options)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(finite(content), indent=2, default=str) + "\n").encode())


def finite(value: Any) -> Any:
    """``value`` with null for numbers that JSON has no word for: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Commit of the checkout that zerosum runs from, ``-dirty`` where it has uncommitted changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
