"""What a finished run left behind, taken up again without its recipe.

A match's outcome may name its kind of result. Packages bring kinds along as entry points of the group
``zerosum.results``: modules that load and export such results, and say what a report
shows of them.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from rich.console import Console
from torch import nn

from zerosum.runs.extras import explained
from zerosum.runs.run_folder import read_summary

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from matplotlib.figure import Figure

_GROUP = "zerosum.results"
HUB = "hf://"


class Kind(Protocol):
    """A kind of result."""

    ExportOptions: type
    """Dataclass of what ``export`` may be told on the command line."""
    FILES: Sequence[str]
    """Of a folder, what ``load`` reads, and what else belongs to the result."""

    def load(self, folder: Path, device: torch.device | str, into: nn.Module | None, trust: bool) -> nn.Module:
        """The module that the run in ``folder`` was for: a copy of ``into`` with what the run made of it, where that
        is given. Code that the folder names is not run without ``trust``."""

    def sections(self, folder: Path) -> "Sequence[tuple[str, str, Figure | Sequence[Mapping[str, Any]]]]":
        """What a report shows of it: titles, texts, and figures or rows of tables."""

    def card(self, folder: Path, name: str) -> "ModelCardData":
        """What the Hub knows a result by: tags, task, figures."""

    def export(self, folder: Path, options: Any, console: Console) -> bool:
        """Write it down for another runtime; False where it does not do there what it should.

        Raises:
            ValueError, OSError, ImportError: input that cannot be worked with.
        """


def kind_of(folder: Path) -> Kind:
    """The kind of result in a run's folder.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: its summary.json cannot be read, or it left nothing of a kind that is installed.
        ImportError: that kind needs a package that is not.
    """
    name = read_summary(folder).get("result")
    installed = {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}
    if name not in installed:
        left = "nothing that can be loaded" if name is None else f"a result of kind {name!r}"
        raise ValueError(f"{folder}: the run left {left}; kinds that are installed: {', '.join(installed) or 'none'}")
    return _loaded(installed[name])


def kinds() -> list[Kind]:
    """All that are installed."""
    return [_loaded(entry) for entry in metadata.entry_points(group=_GROUP)]


def _loaded(entry: metadata.EntryPoint) -> Kind:
    with explained(f"a result of kind {entry.name!r}"):
        kind: Kind = entry.load()
    return kind


def load(
    folder: str | Path, device: torch.device | str = "cpu", into: nn.Module | None = None, trust: bool = False
) -> nn.Module:
    """The module that a finished run was for, in eval mode: of AdaSG, the quantized network.

    Args:
        folder: of the run; or ``"hf://ORG/NAME"``, ``@REVISION`` behind it or not, which :func:`zerosum.push_to_hub`
            filled.
        into: for a folder that cannot build it, a network built so, which is copied.
        trust: run the factory that the folder names.

    Raises:
        FileNotFoundError: no finished run in ``folder``.
        ValueError: the run left no module, or a damaged one, or one that takes ``into`` or ``trust``.
        ImportError: a package is missing; the message has its install line.
        ConnectionError: the Hub is out of reach, or has no such repository.
    """
    if str(folder).startswith(HUB):
        with explained(HUB):
            from zerosum.runs.hub import downloaded

        folder = downloaded(str(folder))
    return kind_of(path := Path(folder).expanduser()).load(path, device, into, trust)
