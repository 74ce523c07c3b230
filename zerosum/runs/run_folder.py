"""A run's folder: what made the run, and what it left behind."""

import itertools
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from zerosum import ranks
from zerosum.runs import inputs
from zerosum.runs.files import write_whole
from zerosum.runs.messages import say
from zerosum.runs.options import Options, encode
from zerosum.runs.recipe import Recipe
from zerosum.runs.versions import git_commit, versions

CONFIG, SUMMARY, METRICS, GAME, LOCK = "config.json", "summary.json", "metrics.jsonl", "game.png", ".lock"
TRACEBACK = "error.txt"
UNFINISHED = "finish_failed"  # in a summary: why what the recipe leaves behind is not there
_KEYS = {"recipe", "recipe_file", "recipe_sha256", "device", "options", "inputs", "versions", "git_commit", "command"}
_KEYS |= {"threads", "resumed"}


def check_free(folder: Path) -> None:
    """That a run may write into ``folder``.

    Raises:
        FileExistsError: it is a file, or holds something already.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out {folder}: there is a file of that name; name a new folder")
    # What a process left that was killed before it had begun counts for nothing.
    if folder.is_dir() and any(path.suffix != ".part" and path.name != LOCK for path in folder.iterdir()):
        what = "another run" if (folder / CONFIG).exists() else "files already"
        raise FileExistsError(
            f"--out {folder}: the folder holds {what}; name a new one, or continue a run with --resume {folder}"
        )


def new_folder(name: str) -> Path:
    """Make a folder in ``runs/`` that no other process has, named for the time.

    Raises:
        OSError: it cannot be made.
    """
    first = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for count in itertools.count(1):
        folder = first if count == 1 else first.with_name(f"{first.name}-{count}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def claim(folder: Path) -> AbstractContextManager[Any]:
    """Hold the folder of a new run; where that cannot be, nothing is written.

    Raises:
        FileExistsError: it holds something already.
        ValueError: another process has it.
        OSError: it cannot be made.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        held.enter_context(hold(folder))
        check_free(folder)  # once more: another may have begun in the meantime
        return held.pop_all()


def write_config(folder: Path, recipe: Recipe, options: Options, made_by: str) -> None:
    """Write what makes the run: recipe, resolved options, what it reads, versions, git commit, and the line that it is
    ``made_by``."""
    write_json(
        folder / CONFIG,
        {
            "recipe": recipe.name,
            "recipe_file": None if recipe.installed else str(recipe.file),
            "recipe_sha256": inputs.checksum(recipe.file),
            "device": str(options.torch_device),
            "options": encode(options),
            "inputs": inputs.describe(options.inputs()),
            "versions": versions(),
            "git_commit": git_commit(),
            "command": made_by,
            "threads": torch.get_num_threads(),
            "ranks": ranks.count(),
            "resumed": [],
        },
    )


def hold(folder: Path) -> AbstractContextManager[Any]:
    """Keep other processes from playing the run in ``folder``, from now to the end of the context or of this process.

    Raises:
        ValueError: one is playing it.
    """
    try:
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{folder}: another process is playing that run") from error


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """That the run in ``folder`` is of this recipe; one that was edited since is said to be.

    Raises:
        ValueError: it is of another.
    """
    config = read_config(folder)
    file = None if recipe.installed else str(recipe.file)
    if (config["recipe"], config["recipe_file"]) != (recipe.name, file):
        its = config["recipe_file"] or config["recipe"]
        raise ValueError(
            f"--resume {folder}: a run of the recipe {its}, not of {file or recipe.name}; go on with "
            + command([its, "--resume", str(folder)])
        )
    known = [config, *(entry for entry in config["resumed"] if "recipe_sha256" in entry)][-1]["recipe_sha256"]
    if inputs.checksum(recipe.file) != known:
        say(f"recipe {recipe.file} was edited since the run was last played; the run goes on with it as it is now")


def note_resumption(folder: Path, recipe: Recipe, options: Options, made_by: str) -> None:
    """Add to config.json by what line, with which versions and by how many ranks the run goes on, and where it finds
    what it reads. Other ranks than before draw other batches, which is said."""
    config, encoded, found = read_config(folder), encode(options), inputs.describe(options.inputs())
    config["inputs"] = found
    config["options"] |= {name: encoded[name] for name in found}
    entry = {"command": made_by, "versions": versions(), "git_commit": git_commit(), "ranks": ranks.count()}
    if (before := [config, *config["resumed"]][-1].get("ranks", 1)) != ranks.count():
        say(
            f"played by {before} rank{'s' * (before > 1)} so far, and by {ranks.count()} from here on, who draw other "
            "batches: it will not end to the bit as it would have"
        )
    config["resumed"].append(entry | {"recipe_sha256": inputs.checksum(recipe.file)})
    write_json(folder / CONFIG, config)


def command(arguments: Sequence[str], name: str = "run") -> str:
    """The line that runs a command of zerosum with these arguments."""
    return shlex.join([Path(sys.executable).name, "-m", f"zerosum.{name}", *arguments])


def read_config(folder: Path) -> dict[str, Any]:
    """All that :func:`write_config` wrote, and every resumption.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its config.json cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: no run there (no {CONFIG})")
    try:
        config = dict(_read_json(folder / CONFIG))
        if missing := _KEYS - config.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read ({error})") from error
    return config


def read_summary(folder: Path) -> dict[str, Any]:
    """What the finished run in ``folder`` came to.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: its summary.json cannot be read.
    """
    if not (folder / SUMMARY).is_file():
        unfinished = (folder / CONFIG).is_file()
        what = f"that run is not finished; go on with --resume {folder}" if unfinished else f"no run (no {SUMMARY})"
        raise FileNotFoundError(f"{folder}: {what}")
    summary = read_summary_so_far(folder)
    if UNFINISHED in summary:
        raise FileNotFoundError(
            f"{folder}: that run's finish failed ({summary[UNFINISHED]}); when this is mended, go on with "
            f"--resume {folder}"
        )
    return summary


def read_summary_so_far(folder: Path) -> dict[str, Any]:
    """What the run in ``folder`` came to, be its finish written or not; nothing while it is played.

    Raises:
        ValueError: its summary.json cannot be read.
    """
    if not (folder / SUMMARY).is_file():
        return {}
    try:
        return dict(_read_json(folder / SUMMARY))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / SUMMARY} cannot be read ({error})") from error


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the unfinished run in ``folder``, as its config.json holds them.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its config.json cannot be read, or the run is finished.
    """
    options = read_config(folder)["options"]
    if is_finished(folder):
        raise ValueError(f"--resume {folder}: that run is finished; its figures are in {folder / SUMMARY}")
    return dict(options)


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has been played to its end, and its finish written.

    Raises:
        ValueError: its summary.json cannot be read.
    """
    return (folder / SUMMARY).exists() and UNFINISHED not in read_summary_so_far(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(finite(content), indent=2, default=str) + "\n").encode())


def finite(value: Any) -> Any:
    """``value`` with null for numbers that JSON has no word for: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
