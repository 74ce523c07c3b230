"""What only parts of the product need: packages that an extra of ``pip install`` brings."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

_OTHERWISE = {"PIL": "pillow", "sklearn": "scikit-learn"}  # names to install by, where they are not those to import by


def missing(what: str, error: BaseException) -> str | None:
    """What to say where ``what`` could not be imported for want of a package that one of our extras brings, with the
    line that installs it; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    name = _OTHERWISE.get(package, package)
    for requirement in metadata.requires("zerosum") or []:
        wanted = re.match(r"([\w-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if wanted and wanted[1].replace("-", "_").lower() == name.replace("-", "_").lower():
            return f"{what} needs the package {name}; pip install 'zerosum[{wanted[2]}]'"
    return None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Around imports: an ImportError says what to install.

    Raises:
        ImportError: as :func:`missing` says it, or as Python does.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (line := missing(what, error)) is None:
            raise
        raise ImportError(line, name=error.name) from error
