"""Quantizing a network from Python: :func:`zerosum.quantize`."""

import dataclasses
import difflib
import inspect
import io
import operator
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from zerosum import Watcher
from zerosum.memory import keep_freed_memory
from zerosum.players import Architecture, InputSpace, batch_that_fits, input_space, load_data
from zerosum.players.export import command as exporting
from zerosum.players.image_processors import processed_space
from zerosum.players.outputs import Logits, answer_with_logits, logits_of
from zerosum.players.progress import silent
from zerosum.players.spaces import check_space, says_space
from zerosum.players.storage import QUANTIZED, load_described, load_quantized
from zerosum.randomness import kept_random_state
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.subject import Data, Subject
from zerosum.runs import recipe as recipes
from zerosum.runs import run_folder
from zerosum.runs.beginning import begin
from zerosum.runs.inputs import expand
from zerosum.runs.messages import output
from zerosum.runs.options import decode
from zerosum.runs.session import Session

_OF_NAMES = {"backbone", "backbone_args", "weights", "weights_key", "num_classes"}


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
        self, path: str | Path, data: Data | None = None, opset: int = 21, progress: bool = True
    ) -> dict[str, Any]:
        """Write the network for another runtime, ``.onnx`` or ``.pt2`` by the name of the file, try that beside
        PyTorch, and return the figures of the comparison: ``agreement`` in percent, sizes, seconds, ….

        Args:
            data: images to compare on; default: those that were measured on, else random ones.
            opset: of ONNX's operators.

        Raises:
            ValueError: another suffix, or a network that the format has no words for.
            ImportError: a package of the extra ``export`` is missing.
            OSError: the file cannot be written.
        """
        given, path = self._subject, expand(path)
        with _undisturbed(), _speaking(progress) as console:
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
            return exporting.write(path, network, description, found, opset, console).figures

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
        return f"Quantized({type(self.network).__name__}, {share:.3f} of the size in float32{measured})"


def quantize(
    network: nn.Module | str,
    bits: str,
    *,
    input_size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    logits: Logits = logits_of,
    class_names: Sequence[str] | None = None,
    data: Data | None = None,
    recipe: str = "adasg",
    out: str | Path | None = None,
    progress: bool = True,
    watchers: Sequence[Watcher] = (),
    **options: Any,
) -> Quantized:
    """Quantize a trained network to a few bits with no data, as ``python -m zerosum.run`` does.

    The same seed gives the same network, to the bit on one machine's CPU, from Python as from the command line. The
    network that is handed in stays exactly as it is, and so do all generators of random numbers.

    Args:
        network: any module that maps images (N, channels, height, width) to logits (N, classes), or a name that the
            option ``--backbone`` takes. In another type than float32 it is quantized as its copy in that.
        bits: of weights and activations, such as ``"w4a8"``.
        input_size: (channels, height, width) of an image. Needed, with ``mean`` and ``std``, where the network does not
            say (timm's and transformers' do, these where their image processor is at hand).
        mean, std: by channel, how pixel values in [0, 1] become the network's input: minus ``mean``, over ``std``.
            Where pixels are taken as they are: 0 and 1.
        logits: takes the logits out of what the network returns. Default: a tensor as it is; ``.logits``; of a mapping
            what is under ``logits`` or ``out``; of a tuple the first.
        class_names: of all classes, for tables and exported files.
        data: real images with labels, for measuring only: an image folder with one folder a class, a ``DataLoader`` or
            ``Dataset`` of images in the network's normalised input space with labels, ``"digits"``, or a name that
            ``--data`` takes.
        recipe: the method, by its name or file.
        out: a new folder for all that the run leaves behind. Default: none stays; :meth:`Quantized.save` keeps it.
        progress: show what happens, in a terminal or a notebook.
        watchers: told of every round (:class:`zerosum.Watcher`); ``match.stop()`` ends the game early.
        options: the recipe's own, as on the command line: ``seed=3``, ``effort="quick"``, ``rounds=500``,
            ``first_last_bits="w8a8"``, ``weight_range="lsq"``, ….

    Returns:
        What there is, also after Ctrl-C.

    Raises:
        TypeError: an option that the recipe does not have.
        ValueError, OSError: input that cannot be worked with, before any work.
        Diverged: the game did (option ``on_divergence``).
    """
    made = recipes.load(recipe)
    if not issubclass(made.config, DataFreeOptions) or len(inspect.signature(made.function).parameters) < 2:
        raise ValueError(f"recipe {recipe} quantizes no network that is handed in: expected recipe(config, subject)")
    subject = None
    if isinstance(network, nn.Module):
        space = _space_of(network, input_size, mean, std)
        subject = Subject(network, space, logits, data, class_names)
        if refused := sorted(_OF_NAMES & options.keys()):
            raise TypeError(
                f"{', '.join(refused)}: only of a network by name, and {type(network).__name__} is handed in"
            )
        options["backbone"] = Architecture.of(network).name
    else:
        given = {"input_size": input_size, "mean": mean, "std": std}
        options |= {"backbone": network} | {name: value for name, value in given.items() if value is not None}
        if data is not None and not isinstance(data, str):
            raise TypeError("data: a loader goes with a network that is handed in; by name, give an image folder")
        options["data"] = data
    said = {"bits": bits} | options
    config = _options(made.config, said)
    keep_freed_memory()
    with _undisturbed(), _speaking(progress) as console, ExitStack() as held:
        experiment, first = begin(made, config, subject)
        kept = None
        if out is None:
            kept = tempfile.TemporaryDirectory(prefix="zerosum-")
            folder = Path(kept.name)
        else:
            folder = expand(out)
            held.enter_context(run_folder.claim(folder))
        run_folder.write_config(folder, made, config, _line(network, recipe, said))
        session = Session(experiment, folder, config, console, watchers)
        over = session.play(first)
        if not over:
            console.print("what there is until then")
            session.conclude()
        found = load_quantized(folder / QUANTIZED, into=None if subject is None else subject.copied(), trust=True)
    if subject is not None:
        found = found.to(next(subject.network.parameters()).device)
    return Quantized(found, folder, subject, not over, kept)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Whatever the caller has switched on or off; afterwards it is as it was."""
    with kept_random_state(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _speaking(progress: bool) -> Iterator[Console]:
    if progress:
        yield output()
        return
    with silent():
        yield Console(file=io.StringIO(), quiet=True)


def _space_of(network: nn.Module, input_size: Any, mean: Any, std: Any) -> InputSpace:
    """What is said, and where nothing is, what the network says itself.

    Raises:
        ValueError: too little is known, or what is said makes no sense.
    """
    own = input_space(network) if says_space(network) else processed_space(network)
    size = input_size if input_size is not None else None if own is None else (own.channels, *own.size)
    mean = mean if mean is not None else None if own is None else own.mean
    std = std if std is not None else None if own is None else own.std
    given = {"input_size=(channels, height, width)": size, "mean=": mean, "std=": std}
    name = type(network).__name__
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(
            f"{name} does not say what images it takes: give {', '.join(missing)}, by which pixel values in 0 to 1 are "
            "normalised (mean=0, std=1 where they are taken as they are)"
        )
    try:
        channels, height, width = (operator.index(side) for side in size or ())
        mean, std = (
            tuple(float(value) for value in values) if isinstance(values, Iterable) else (float(values),) * channels
            for values in (mean, std)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"input_size={size}, mean={mean}, std={std}: expected (channels, height, width), and a number a channel"
        ) from error
    space = InputSpace(channels, (height, width), mean, std)
    check_space(name, space)
    return space


def _options(config: type[DataFreeOptions], given: Mapping[str, Any]) -> DataFreeOptions:
    """As the recipe's own type; those of a dataclass among them by their own names, as on the command line."""
    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    nested = {
        inner.name: name
        for name, field in fields.items()
        if dataclasses.is_dataclass(made := field.default_factory)
        for inner in dataclasses.fields(cast(Any, made))
    }
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in fields:
            found[name] = value
        elif name in nested:
            found.setdefault(nested[name], {})[name] = value
        else:
            close = difflib.get_close_matches(name, [*fields, *nested], n=1)
            raise TypeError(f"{name}: no such option" + (f"; did you mean {close[0]}?" if close else ""))
    return decode(config, found)


def _line(network: nn.Module | str, recipe: str, said: Mapping[str, Any]) -> str:
    """The call, for who reads the run's folder."""
    first = repr(network) if isinstance(network, str) else f"<{type(network).__qualname__}>"
    named = {"recipe": recipe} if recipe != "adasg" else {}
    arguments = [f"{name}={value!r}" for name, value in {**said, **named}.items() if name not in ("bits", "backbone")]
    return f"zerosum.quantize({', '.join([first, repr(said['bits']), *arguments])})"
