"""timm and torchvision, which take two seconds to import, and the Hub's client: only when something of them is used,
which no ``--help`` does. From Python 3.15 on, ``lazy import`` says the same."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


class Lazy:
    """Stands for a module, which is imported when an attribute of it is first asked for.

    Not Python's own LazyLoader, whose modules whoever looks through ``sys.modules`` imports (``inspect.getmodule``).

    Raises:
        ModuleNotFoundError: it is not installed.
    """

    def __init__(self, name: str) -> None:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


timm, torchvision, huggingface_hub = Lazy("timm"), Lazy("torchvision"), Lazy("huggingface_hub")
