"""What comes of quantizing a network from Python."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from zerosum.players import batch_that_fits, load_data
from zerosum.players.export import command as exporting
from zerosum.players.export.targets import TargetName
from zerosum.players.outputs import answer_with_logits
from zerosum.players.progress import silent
from zerosum.players.storage import QUANTIZED, load_described
from zerosum.randomness import kept_random_state
from zerosum.recipes.common.subject import Data, Subject
from zerosum.runs import run_folder
from zerosum.runs.inputs import expand
from zerosum.runs.messages import output


class Quantized:
    """What came of :func:`zerosum.quantize`.

    Attributes:
        network: the quantized network, an ordinary module in eval mode on the device of the one it was made of, which
            returns what that returns. It keeps its weights as integers, and computes in float arithmetic.
        summary: figures as in a run's summary.json: ``teacher_top1``, ``before_top1``, ``after_top1``, …, where there
            was something to measure on.
        interrupted: Ctrl-C ended the game before its last round; the network is the best until then.
    """

    def __init__(self, network: nn.Module, folder: Path, subject: Subject | None, interrupted: bool, held: Any) -> None:
        self.network, self.interrupted = network, interrupted
        self.summary = run_folder.read_summary(folder)
        self._folder, self._subject, self._held = folder, subject, held

    def save(self, folder: str | Path) -> Path:
        """Keep all that the run left behind in a new folder, and return it: ``zerosum.load(folder, into=network)``
        gives the quantized network back, ``zerosum report`` and ``compare`` read it.

        Raises:
            FileExistsError: the folder holds something already.
            OSError: it cannot be written.
        """
        folder = expand(folder)
        run_folder.check_free(folder)
        left_out = shutil.ignore_patterns("checkpoints", run_folder.LOCK, "*.part")
        shutil.copytree(self._folder, folder, ignore=left_out, dirs_exist_ok=True)
        return folder

    def export(
        self,
        path: str | Path,
        data: Data | None = None,
        opset: int = 21,
        target: TargetName | None = None,
        progress: bool = True,
    ) -> dict[str, Any]:
        """Write the network for another runtime, ``.onnx``, ``.pt2`` or ``.pte`` by the name of the file, try that
        beside PyTorch, and return the figures of the comparison: ``agreement`` in percent, sizes, seconds, ….

        Args:
            data: images to compare on; default: those that were measured on, else random ones.
            opset: of ONNX's operators.
            target: the runtime that the file is for (docs/export.md); ``broken_rules`` says which of its rules for
                integer kernels do not hold.

        Raises:
            ValueError: another suffix, or a network that the format has no words for.
            ImportError: a package of the extra ``export`` (or ``executorch``) is missing.
            OSError: the file cannot be written.
        """
        given, path = self._subject, expand(path)
        with undisturbed(), speaking(progress) as console:
            network, description = load_described(
                self._folder / QUANTIZED, into=None if given is None else given.copied(), trust=True
            )
            if given is not None:
                answer_with_logits(network, given.logits)
                data = data if data is not None else given.data
            if given is None and data is None:
                found = exporting.images_to_compare(self._folder, None, network)
            elif data is None:
                found = (None, "random images")
            else:
                loader = load_data(data, network, batch_that_fits(network, space=description.space), description.space)
                found = (loader, data if isinstance(data, str) else "the data given")
            report, broken = exporting.write(path, network, description, found, opset, console, target=target)
            return report.figures | {"broken_rules": [*map(str, broken)]}

    def report(self, path: str | Path) -> Path:
        """Write a page about the run that opens offline, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        from zerosum.runs.report import write_report

        write_report(self._folder, expand(path))
        return expand(path)

    def __repr__(self) -> str:
        top1 = self.summary.get("after_top1")
        share = self.summary["quantized_bytes"] / self.summary["float_bytes"]
        measured = "" if top1 is None else f", top-1 {top1:.1f} % (full precision {self.summary['teacher_top1']:.1f} %)"
        ended = ", interrupted" if self.interrupted else ""
        return f"Quantized({type(self.network).__name__}, {share:.3f} of the size in float32{measured}{ended})"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever the caller has switched on or off; afterwards it is as it was."""
    with kept_random_state(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def speaking(progress: bool) -> Iterator[Console]:
    """What to print on, which goes nowhere without ``progress``; bars are not shown then either."""
    if progress:
        yield output()
        return
    with silent():
        yield Console(file=io.StringIO(), quiet=True)
