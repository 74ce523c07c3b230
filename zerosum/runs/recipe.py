"""A recipe: one Python file with a typed ``Config`` and a function ``recipe(config) -> Experiment`` (or ``Match``)."""

import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from zerosum.match import Match
from zerosum.runs.experiment import Experiment, Stage
from zerosum.runs.extras import missing
from zerosum.runs.inputs import expand
from zerosum.runs.options import Options

_GROUP = "zerosum.recipes"


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe, and the file it is in; an installed one is itself wherever that is."""

    name: str
    config: type[Options]
    function: Callable[..., Experiment | Stage | Match]
    file: Path
    installed: bool

    def make(self, options: Options, *given: Any) -> Experiment:
        """What the recipe makes of its options, and of what it is given besides."""
        made = self.function(options, *given)
        return made if isinstance(made, Experiment) else Experiment.of(made)


def installed() -> list[str]:
    """Names of the recipes that packages bring along, as entry points of the group ``zerosum.recipes``: modules."""
    return sorted({entry.name for entry in entry_points(group=_GROUP)})


def load(source: str) -> Recipe:
    """The recipe in a file (``recipes/adasg.py``), or an installed one by name (``adasg``).

    Raises:
        FileNotFoundError: no such file, and no such name.
        ValueError: the file cannot be imported, or defines no recipe; where a package of ours is missing, the message
            has its install line.
    """
    path = expand(source)
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"recipe {source}: no such file; installed recipes: {', '.join(installed())}")
        module = _import_file(path)
    elif source in installed():
        module = _import_installed(source)
    else:
        close = difflib.get_close_matches(source, installed(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"installed recipes: {', '.join(installed())}"
        raise FileNotFoundError(f"recipe {source}: neither a .py file nor an installed recipe; {hint}")

    config, make = getattr(module, "Config", None), getattr(module, "recipe", None)
    if not (isinstance(config, type) and issubclass(config, Options) and callable(make)):
        raise ValueError(
            f"{source} defines no recipe: expected a dataclass Config(zerosum.runs.Options) and a function "
            "recipe(config) -> zerosum.Match, or zerosum.runs.Experiment"
        )
    file = Path(str(module.__file__)).resolve()
    return Recipe(path.stem, config, make, file, installed=file == _installed_file(path.stem))


@contextmanager
def beside(source: str) -> Iterator[None]:
    """Let a recipe file import the modules beside it whenever it likes, as Python lets a script. Those that it did are
    forgotten at the end, for another recipe may have others of the same names."""
    folder, known = expand(source).absolute().parent, set(sys.modules)
    if Path(source).suffix != ".py":
        yield
        return
    try:
        with _searched(folder):
            yield
    finally:
        tops = {top for top in set(sys.modules) - known if "." not in top and _lies_in(folder, sys.modules[top])}
        for name in [name for name in list(sys.modules) if name.partition(".")[0] in tops]:
            del sys.modules[name]


def _lies_in(folder: Path, module: ModuleType) -> bool:
    places = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
    return any(Path(place).parent == folder for place in places if place)


@contextmanager
def _searched(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _installed_file(name: str) -> Path | None:
    entry = _entry(name) if name in installed() else None
    spec = importlib.util.find_spec(entry.module) if entry is not None else None
    return Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None


def _entry(name: str) -> EntryPoint:
    found = {entry.value: entry for entry in entry_points(group=_GROUP, name=name)}
    if len(found) > 1:
        raise ValueError(f"recipe {name}: packages bring {len(found)} of that name ({', '.join(found)}); give its file")
    return next(iter(found.values()))


def _import_installed(name: str) -> ModuleType:
    try:
        module: ModuleType = _entry(name).load()
    except ImportError as error:
        raise _not_imported(name, error) from error
    return module


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    try:
        with _searched(path.absolute().parent):
            spec.loader.exec_module(module)
    except Exception as error:
        raise _not_imported(path, error) from error
    return module


def _not_imported(source: object, error: Exception) -> ValueError:
    plain = f"recipe {source} cannot be imported: {type(error).__name__}: {error}"
    return ValueError(missing(f"recipe {source}", error) or plain)
