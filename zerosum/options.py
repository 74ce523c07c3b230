"""Options as config.json keeps them: JSON that a person reads, and that comes back as exactly what it was."""

import dataclasses
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError

from zerosum.inputs import expand
from zerosum.recipe import Options

O = TypeVar("O", bound=Options)  # noqa: E741

_CONFIG = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64")
_OF_THE_FOLDER = {"out", "resume"}  # where the run lies: the caller knows


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


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


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
