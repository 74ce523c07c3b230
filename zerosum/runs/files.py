"""Files that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file such that, whatever happens, there is all of it, or what was there before.

    Raises:
        OSError: it cannot be written; nothing is left of the try.
    """
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # so that the name is on the disk too
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A folder to write files and folders of files into. They are put in their places in ``folder`` when all are there
    and on the disk; none is where an error is raised.

    Raises:
        OSError: they cannot be written.
    """
    aside = folder / "files.part"
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    aside.mkdir(parents=True)
    try:
        yield aside
        written = sorted(path for path in aside.rglob("*") if path.is_file())
        for path in written:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for path in written:
            place = folder / path.relative_to(aside)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
