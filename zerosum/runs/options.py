"""A run's options, and how config.json keeps them: JSON that a person reads, and that comes back as what it was."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import torch
from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError
from rich.console import Console

from zerosum.runs.inputs import expand
from zerosum.runs.messages import flag

_CONFIG = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64")
Settled = TypeVar("Settled", bound="Options")
AUTO = Path("auto")
_OF_THE_FOLDER = {"out", "resume"}  # where the run lies: the caller knows


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every recipe's run takes; a recipe's ``Config`` derives from it."""

    rounds: int | None
    """Rounds to play; 0 plays none and leaves what the set-up gives."""
    seed: int = 0
    """Seed of every random number. On one machine's CPU it fixes a run; CUDA adds in an order of its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    out: Path | None = None
    """Folder for what the run leaves behind; must be new or empty. Default: runs/<recipe>-<date>-<time>."""
    resume: Path | None = None
    """Folder of an interrupted run to continue, with the options it was started with; those below, and --device, may
    differ. auto: the one that --out names, where a run was begun there, for lines that are started again as they are
    (torchrun --max-restarts, requeued jobs)."""
    step_scale: float | None = None
    """Factor on the step sizes of both players. Default: 1; of a run that is resumed, what it had."""
    on_divergence: Literal["stop", "rewind"] = "stop"
    """Where a loss, gradient or parameter is not finite any more, or a player runs away: stop (exit code 3), or go back
    to the last checkpoint and on with half the step sizes."""
    max_rewinds: int = 10
    """How often to go back before the run stops after all."""
    checkpoint_every: float = 60.0
    """Seconds from one checkpoint to the next; 0 saves every round."""
    checkpoints: int = 2
    """How many of the newest to keep, beside the first and the best."""
    tensorboard: bool = False
    """Write scalars and pictures for TensorBoard too (pip install 'zerosum[tensorboard]')."""

    def settled(self: Settled, console: Console, *given: Any) -> Settled:
        """With what is left to the machine decided, and said on the ``console``; a recipe's ``Config`` may have such
        options. Called after :meth:`check`, before the recipe is made, of these options and what it is given besides.
        config.json has what comes of it, so that a run that is resumed goes on as it began."""
        return self

    def check(self) -> None:
        """Called before anything is set up; a recipe's ``Config`` adds its own checks.

        Raises:
            ValueError: an option has a value that makes no sense.
        """
        for field in dataclasses.fields(self):
            if _has_nan(value := getattr(self, field.name)) and not _has_nan(field.default):
                raise ValueError(f"{flag(field.name)} {value}: expected a number")
        self.check_at_least(0, "rounds", "seed", "step_scale", "max_rewinds", "checkpoint_every")
        self.check_at_least(1, "checkpoints")

    def inputs(self) -> Mapping[str, Path]:
        """The files and folders that the run reads, by the option that names them. A run that is resumed must find the
        same content there, or be given it anew."""
        return {}

    def check_at_least(self, minimum: float, *names: str) -> None:
        """That these options, where given, are finite and no smaller than ``minimum``.

        Raises:
            ValueError: one is not.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and not minimum <= value < 2**63:
                raise ValueError(f"{flag(name)} {value}: expected a finite number, at least {minimum:g}")

    def check_each_once(self, name: str) -> None:
        """That the option, a list, names something, and nothing twice.

        Raises:
            ValueError: it does not.
        """
        values = getattr(self, name)
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{flag(name)} {' '.join(values)}: expected one or more, each once")

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine.

        Raises:
            ValueError: CUDA is asked for where there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        return torch.device(kind)  # of CUDA's the current one, which is a rank's own


MAY_DIFFER = frozenset(
    ("device", "step_scale", "on_divergence", "max_rewinds", "checkpoint_every", "checkpoints", "tensorboard")
)
"""Options that may be given anew when a run is resumed."""


O = TypeVar("O", bound=Options)  # noqa: E741


def encode(options: Options) -> dict[str, Any]:
    """Every option in plain JSON values.

    Raises:
        ValueError: one has a type, or a value, that does not come back as it was.
    """
    return {name: _encode(name, hint, getattr(options, name)) for name, hint in _types(type(options)).items()}


def decode(config: type[O], kept: Mapping[str, Any]) -> O:
    """The options that :func:`encode` gave, without ``out`` and ``resume``; the default where there is none.

    Raises:
        ValueError: one is no value of its type, or one without a default is missing.
    """
    found = {}
    for name, hint in _types(config).items():
        if name in kept and name not in _OF_THE_FOLDER:
            try:
                found[name] = _decode(hint, kept[name])
            except ValueError as error:
                raise ValueError(f"{flag(name)}: {kept[name]!r} is no {_in_words(hint)}") from error
    try:
        return config(**found)
    except TypeError as error:
        raise ValueError(str(error)) from error


def with_full_paths(options: O) -> O:
    """The options with ``~`` expanded, and with absolute paths of what the run reads, so that it can go on from any
    directory."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    expanded: dict[str, Any] = {name: expand(value) for name, value in values.items() if isinstance(value, Path)}
    options = dataclasses.replace(options, **expanded)
    named = {name: (getattr(options, name), path) for name, path in options.inputs().items() if path.exists()}
    full: dict[str, Any] = {
        name: type(value)(path.absolute())
        for name, (value, path) in named.items()
        if isinstance(value, str | Path) and expand(value) == path  # not one that stands for a path
    }
    return dataclasses.replace(options, **full)


def _has_nan(value: object) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return any(isinstance(number, float) and math.isnan(number) for number in numbers)


def flat(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Options as :func:`encode` gives them, those of a dataclass among them one by one, as the command line takes
    them: ``scheme``'s ``weight_range`` is ``weight_range``; where another is named so, ``scheme.weight_range``."""
    parts = [flat(value) if isinstance(value, Mapping) else {} for value in kept.values()]
    names = Counter([*kept, *(name for part in parts for name in part)])
    found: dict[str, Any] = {}
    for (name, value), part in zip(kept.items(), parts, strict=True):
        if part:
            found |= {inner if names[inner] == 1 else f"{name}.{inner}": item for inner, item in part.items()}
        else:
            found[name] = value
    return found


def _types(config: type[Options]) -> dict[str, Any]:
    hints = get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(tuple[hint], config=_CONFIG)  # alone, a dataclass takes no configuration


def _encode(name: str, hint: Any, value: Any) -> Any:
    if name in _OF_THE_FOLDER:
        return None if value is None else str(value)
    try:
        encoded = _dump(_adapter(hint), value)
        same = _same(_decode(hint, encoded), value)
    except (PydanticUserError, PydanticSerializationError, ValueError, TypeError):
        same = False
    if not same:
        raise ValueError(
            f"{flag(name)} {value}: an option of type {_in_words(hint)} does not come back from config.json as it was, "
            "so the run could not be resumed; give it another type in Config"
        )
    return encoded


def _dump(adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return json.loads(adapter.dump_json((value,), warnings="none"))[0]
    except PydanticSerializationError:  # a file's name that is no UTF-8, perhaps
        return adapter.dump_python((value,), mode="json", warnings="none")[0]


def _decode(hint: Any, encoded: Any) -> Any:
    try:
        content = json.dumps([encoded], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _adapter(hint).validate_python([encoded])[0]
    return _adapter(hint).validate_json(content)[0]


def _same(one: Any, other: Any) -> bool:
    """Equal, of the same types throughout; NaN is NaN."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, Mapping):
        return _same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Set):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    return bool(one == other or (one != one and other != other))


def _in_words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).removeprefix("typing.")
