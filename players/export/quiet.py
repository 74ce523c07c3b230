"""Exporters talk a lot."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """What they log and warn of, to stderr from C++ too, is for those who write exporters."""
    level, kept = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    with open(os.devnull, "wb") as nothing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            logging.disable(level)
