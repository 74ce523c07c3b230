"""A recipe: one Python file with a typed ``Config`` and a function ``recipe(config) -> Match`` (or ``Contest``)."""

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch

from zerosum.inputs import expand
from zerosum.match import Contest, Match


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every recipe's run takes; a recipe's ``Config`` derives from it."""

    rounds: int
    """Rounds to play; 0 plays none and leaves what the set-up gives."""
    seed: int = 0
    """Seed of every random number. On one machine's CPU it fixes a run; CUDA adds in an order of its own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    out: Path | None = None
    """Folder for what the run leaves behind; must be new or empty. Default: runs/<recipe>-<date>-<time>."""
    resume: Path | None = None
    """Folder of an interrupted run to continue, with the options it was started with; those below, and --device, may
    differ."""
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

    def check(self) -> None:
        """Called before anything is set up; a recipe's ``Config`` adds its own checks.

        Raises:
            ValueError: an option has a value that makes no sense.
        """
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
                raise ValueError(f"--{name.replace('_', '-')} {value}: expected a finite number, at least {minimum:g}")

    def check_each_once(self, name: str) -> None:
        """That the option, a list, names something, and nothing twice.

        Raises:
            ValueError: it does not.
        """
        values = getattr(self, name)
        if not values or len(set(values)) < len(values):
            raise ValueError(f"--{name.replace('_', '-')} {' '.join(values)}: expected one or more, each once")

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine.

        Raises:
            ValueError: CUDA is asked for where there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


MAY_DIFFER = frozenset(
    ("device", "step_scale", "on_divergence", "max_rewinds", "checkpoint_every", "checkpoints", "tensorboard")
)
"""Options that may be given anew when a run is resumed."""


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe, and the file it is in; an installed one is itself wherever that is."""

    name: str
    config: type[Options]
    make: Callable[[Options], Match | Contest]
    file: Path
    installed: bool


def installed() -> list[str]:
    """Names of the recipes in the ``recipes`` package."""
    package = importlib.import_module("recipes")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)


def load(source: str) -> Recipe:
    """The recipe in a file (``recipes/adasg.py``), or an installed one by name (``adasg``).

    Raises:
        FileNotFoundError: no such file, and no such name.
        ValueError: the file cannot be imported, or defines no recipe.
    """
    path = expand(source)
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"recipe {source}: no such file; installed recipes: {', '.join(installed())}")
        module = _import_file(path)
    elif source in installed():
        module = importlib.import_module(f"recipes.{source}")
    else:
        close = difflib.get_close_matches(source, installed(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"installed recipes: {', '.join(installed())}"
        raise FileNotFoundError(f"recipe {source}: neither a .py file nor an installed recipe; {hint}")

    config, make = getattr(module, "Config", None), getattr(module, "recipe", None)
    if not (isinstance(config, type) and issubclass(config, Options) and callable(make)):
        raise ValueError(
            f"{source} defines no recipe: expected a dataclass Config(zerosum.Options) and a function "
            "recipe(config) -> zerosum.Match"
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
    with _searched(folder):
        yield
    new = {name: sys.modules.get(name.partition(".")[0]) for name in set(sys.modules) - known}
    for name, package in new.items():
        if getattr(package, "__file__", None) in (str(folder / f"{name}.py"), str(folder / name / "__init__.py")):
            del sys.modules[name]


@contextmanager
def _searched(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _installed_file(name: str) -> Path | None:
    spec = importlib.util.find_spec(f"recipes.{name}") if name in installed() else None
    return Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None


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
        raise ValueError(f"recipe {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
