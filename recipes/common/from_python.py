"""Quantizing a network from Python: :func:`zerosum.quantize`."""

import dataclasses
import difflib
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from zerosum import Watcher, ranks
from zerosum.memory import keep_freed_memory
from zerosum.players import Architecture
from zerosum.players.outputs import Logits, logits_of
from zerosum.players.storage import QUANTIZED, load_quantized
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.quantized import Quantized, speaking, undisturbed
from zerosum.recipes.common.subject import Data, Subject, space_of
from zerosum.runs import recipe as recipes
from zerosum.runs import run_folder
from zerosum.runs.beginning import Beginning, begin
from zerosum.runs.inputs import expand
from zerosum.runs.options import decode
from zerosum.runs.session import Session

_OF_NAMES = {"backbone", "backbone_args", "weights", "weights_key", "num_classes"}


def quantize(
    network: nn.Module | str,
    bits: str,
    *,
    input_size: Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
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
        mean, std: by channel, or one for all, how pixel values in [0, 1] become the network's input: minus ``mean``,
            over ``std``. Where pixels are taken as they are: 0 and 1.
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
    if out is not None:
        ranks.from_first(partial(run_folder.check_free, out := expand(out)))
    if ranks.index() > 0:  # the first keeps what there is to keep
        out = None
    subject = None
    if isinstance(network, nn.Module):
        if refused := sorted(_OF_NAMES & options.keys()):
            raise TypeError(
                f"{', '.join(refused)}: only of a network by name, and {type(network).__name__} is handed in"
            )
        subject = Subject(network, space_of(network, input_size, mean, std), logits, data, class_names)
        options["backbone"] = Architecture.of(network).name
    else:
        if not isinstance(data, str | None) or class_names is not None or logits is not logits_of:
            raise TypeError("a loader, class_names and logits go with a network that is handed in, not with a name")
        given = {"input_size": input_size, "mean": _each(mean), "std": _each(std), "data": data}
        options |= {"backbone": network} | {name: value for name, value in given.items() if value is not None}
    said = {"bits": bits} | options
    config = _options(made.config, said)
    keep_freed_memory()
    with (
        recipes.beside(recipe),
        undisturbed(),
        speaking(progress and ranks.index() == 0) as console,
        ExitStack() as held,
    ):
        kept = tempfile.TemporaryDirectory(prefix="zerosum-") if out is None else None
        folder = Path(kept.name if kept is not None else cast(str, out))

        def begun() -> Beginning:
            found = begin(made, config, console, subject)
            if kept is None:
                held.enter_context(run_folder.claim(folder))
            run_folder.write_config(folder, made, found.options, _line(network, recipe, said))
            return found

        experiment, first, settled = ranks.together(begun)
        session = Session(experiment, folder, settled, console, watchers)
        over = session.play(first)
        if not over:
            console.print("what there is until then")
            session.conclude()
        found = load_quantized(folder / QUANTIZED, into=None if subject is None else subject.copied(), trust=True)
    if subject is not None:
        found = found.to(next(subject.network.parameters()).device)
    return Quantized(found, folder, subject, not over, kept)


def _each(values: float | Sequence[float] | None) -> Sequence[float] | None:
    return (values,) if isinstance(values, int | float) else values


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
