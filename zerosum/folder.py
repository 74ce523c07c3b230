"""A run's folder: what made the run, and what it left behind."""

import dataclasses
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

CONFIG, SUMMARY, METRICS, CHECKPOINT = "config.json", "summary.json", "metrics.jsonl", "checkpoint.pt"
_PACKAGES = ("zerosum", "torch", "torchvision", "timm", "numpy")


def check_free(folder: Path) -> None:
    """That a run may write into ``folder``.

    Raises:
        FileExistsError: it is a file, or holds something already.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out {folder}: there is a file of that name; name a new folder")
    if folder.is_dir() and any(folder.iterdir()):
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
            "versions": {"python": platform.python_version()} | _versions(),
            "git_commit": _git_commit(),
            "command": shlex.join([Path(sys.executable).name, "-m", "zerosum.run", *arguments]),
            "threads": torch.get_num_threads(),
        },
    )


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the run in ``folder``, as its config.json holds them.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its config.json cannot be read, or the run is finished.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"--resume {folder}: no run there (no {CONFIG})")
    if (folder / SUMMARY).exists():
        raise ValueError(f"--resume {folder}: that run is finished; its figures are in {folder / SUMMARY}")
    try:
        return dict(json.loads((folder / CONFIG).read_text())["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume {folder}: {CONFIG} cannot be read ({error})") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` aside, then put it in place: a reader never sees half a file."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(finite(content), indent=2, default=str) + "\n")
    os.replace(aside, path)


def finite(value: Any) -> Any:
    """``value`` with null for numbers that JSON has no word for: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Save a match's state; the checkpoint before it stays until the new one is complete."""
    aside = folder / (CHECKPOINT + ".part")
    torch.save(dict(state), aside)
    os.replace(aside, folder / CHECKPOINT)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest state saved in ``folder``, its tensors on the CPU. Runs no code from the file.

    Raises:
        FileNotFoundError: the run saved none yet.
        ValueError: the file is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"--resume {folder}: the run stopped before its first checkpoint; start it anew")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is damaged and cannot be loaded ({type(error).__name__})") from error
    return state


def _versions() -> dict[str, str]:
    found = {}
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
