"""What a run is played with."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("zerosum", "torch", "torchvision", "timm", "numpy")


def versions() -> dict[str, str]:
    """Of Python, and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout that zerosum runs from, ``-dirty`` where it has uncommitted changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode("ascii", "replace").strip() or None
