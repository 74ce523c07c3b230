"""How a network is built, in words that a file can keep: by timm, by a factory of its user's, or by nobody but them."""

import difflib
import importlib
import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from zerosum.players.lazy import timm
from zerosum.players.reasons import first_line, in_a_line

_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_FACTORY = re.compile(f"{_DOTTED}:{_DOTTED}")
# What timm.create_model takes beside a network's own arguments: weights come from elsewhere, and are read safely there.
_OF_TIMM = frozenset(("pretrained", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit"))


@dataclass(frozen=True)
class Architecture:
    """What a network is before it has weights.

    Attributes:
        kind: ``"timm"``, built by ``timm.create_model``; ``"factory"``, by a callable that returns a module;
            ``"module"``, a module that was handed in, which nothing here can build.
        name: timm's name; ``package.module:factory``; or the qualified name of the module's class.
        args: what is passed by keyword: values of JSON, as which they are kept (a tuple is a list).

    Raises:
        ValueError: another kind, arguments that JSON has no words for, or that would have timm read other files.
    """

    kind: Literal["timm", "factory", "module"]
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("timm", "factory", "module") or not isinstance(self.name, str):
            raise ValueError(f"architecture {self.kind!r} {self.name!r}: expected timm, factory or module, and a name")
        try:  # now, not when a run ends; and the network is built of the same arguments when it is loaded
            args = json.loads(json.dumps(dict(self.args)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"arguments of {self.name}: {error}; expected numbers, texts, lists and mappings"
            ) from error
        if self.kind == "timm" and (refused := sorted(_OF_TIMM & args.keys())):
            raise ValueError(
                f"backbone {self.name!r}: {', '.join(refused)} cannot be given as an argument of a network"
            )
        object.__setattr__(self, "args", args)

    @classmethod
    def of(cls, network: nn.Module) -> "Architecture":
        """That of a module which is handed in."""
        return cls("module", f"{type(network).__module__}.{type(network).__qualname__}")

    def build(self) -> nn.Module:
        """The network, with the weights that its constructor draws. Of a factory, this imports it and runs it.

        Raises:
            ValueError: it cannot be built so.
        """
        if self.kind == "timm":
            return self._by_timm()
        if self.kind == "factory":
            return self._by_factory()
        raise ValueError(f"{self.name}: a module that was handed in cannot be built; hand it in again")

    def _by_timm(self) -> nn.Module:
        check_timm_name(self.name)
        args = {key: tuple(value) if key == "img_size" and value else value for key, value in self.args.items()}
        try:
            return timm.create_model(self.name, pretrained=False, **args)
        except Exception as error:  # of any type: it is the model's own code that does not take them
            raise ValueError(f"backbone {self.name!r}: timm cannot build it so: {in_a_line(error)}") from error

    def _by_factory(self) -> nn.Module:
        name, _, attribute = self.name.partition(":")
        try:
            module = importlib.import_module(name)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
            raise ValueError(
                f"backbone {self.name}: no module {error.name}; is the folder that it lies in on PYTHONPATH?"  # type: ignore[attr-defined]
                if missing
                else f"backbone {self.name}: importing {name} failed: {in_a_line(error)}"
            ) from error
        try:
            factory = operator.attrgetter(attribute)(module)
        except AttributeError as error:
            close = difflib.get_close_matches(attribute, vars(module), n=3)
            nearest = f"; nearest: {', '.join(close)}" if close else ""
            raise ValueError(f"backbone {self.name}: {name} has no {attribute}{nearest}") from error
        try:
            network = factory(**self.args)
        except Exception as error:
            with_these = ", ".join(f"{key}={value!r}" for key, value in self.args.items())
            raise ValueError(f"backbone {self.name}: {attribute}({with_these}) failed: {in_a_line(error)}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"backbone {self.name}: expected a torch.nn.Module, it returned {type(network).__name__}")
        return network


def is_factory(name: str) -> bool:
    """Whether a network's name is that of a factory, ``package.module:factory``."""
    return _FACTORY.fullmatch(name) is not None


def check_timm_name(name: str) -> None:
    """That timm knows a network of this name, with or without a pretrained tag; a place to get one from is no name.

    Raises:
        ValueError: it does not; the message has the nearest.
    """
    from zerosum.players import small_resnets, small_transformers  # noqa: F401 (which timm knows from then on)

    if timm.is_model(name.split(".", 1)[0]) and not re.search(r"[:/\\]", name):
        try:
            timm.models.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise ValueError(f"backbone {name!r}: {first_line(error)}") from error
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    nearest = f"nearest: {', '.join(close)}" if close else "timm.list_models() lists them"
    raise ValueError(f"backbone {name!r}: timm knows no such network; {nearest}")


def arguments_of(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments from texts ``key=value``; values are read as JSON, or else are texts.

    Raises:
        ValueError: one has no key, or is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise ValueError(f"--backbone-args {text}: expected key=value, each key once")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
