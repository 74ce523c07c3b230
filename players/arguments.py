"""What a module is called with, by position or by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


def input_name(module: nn.Module, kwargs: Mapping[str, Any]) -> str | None:
    """The keyword that a module called without positional arguments is given its input by; None where there is none."""
    first = next(iter(inspect.signature(module.forward).parameters), None)
    return first if first in kwargs else next(iter(kwargs), None)


def input_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The input of a call that has one."""
    return args[0] if args else kwargs[input_name(module, kwargs) or ""]


def with_input(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], x: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a call that has an input, with another in its place."""
    return ((x, *args[1:]), kwargs) if args else (args, kwargs | {input_name(module, kwargs) or "": x})
