"""Results on the Hugging Face Hub: a repository of safetensors and JSON, with a model card made of the run's report.

Nothing in a repository is run: ``load`` takes tensors, and builds what they are of by its name.
"""

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, snapshot_download
from matplotlib.figure import Figure

from zerosum.runs import results, run_folder
from zerosum.runs.inputs import expand
from zerosum.runs.messages import flag
from zerosum.runs.watchers.pictures import drawn

CARD = "README.md"
_PICTURES = "pictures"
_TIMEOUT = 10.0  # seconds until the Hub counts as out of reach


def push_to_hub(folder: str | Path, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Put a finished run's result into a repository of the Hugging Face Hub, made where it is not there yet: its files
    as :func:`zerosum.load` reads them (``zerosum.load("hf://ORG/NAME")``), and a model card. No path of this machine is
    among them.

    Args:
        folder: of the run, or where :meth:`zerosum.Quantized.save` kept it.
        repository: ``"ORG/NAME"``.
        private: whether a new repository is; default: as the organization has it.
        token: default: that of ``hf auth login``.

    Returns:
        The address of its page.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: it left nothing that can be loaded.
        ConnectionError: the Hub is out of reach, or refuses.
    """
    with tempfile.TemporaryDirectory(prefix="zerosum-") as temporary:
        write_repository(expand(folder), Path(temporary), repository)
        api = HfApi(token=token, library_name="zerosum")
        with _asking(f"push to {repository}"):
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=temporary, commit_message="A quantized network")
    return str(address)


def write_repository(folder: Path, destination: Path, repository: str) -> None:
    """Write what a repository of the run in ``folder`` holds.

    Raises:
        FileNotFoundError, ValueError: as :func:`push_to_hub`.
    """
    kind, config = results.kind_of(folder), run_folder.read_config(folder)
    for name in (*kind.FILES, run_folder.SUMMARY):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, destination / name)
    about = {name: config["versions"][name] for name in ("zerosum", "torch", "timm") if name in config["versions"]}
    made = {"library_name": "zerosum", "zerosum": {"recipe": config["recipe"], "versions": about}}
    run_folder.write_json(destination / run_folder.CONFIG, made)
    (destination / _PICTURES).mkdir()
    text = "\n\n".join([*_of_the_result(kind, folder, destination), *_of_the_game(folder, destination)])
    opening = _OPENING.format(repository=repository, command=without_paths(config))
    data = kind.card(folder, repository.rpartition("/")[2])
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {repository.rpartition('/')[2]}\n\n{opening}\n\n{text}\n")
    (destination / CARD).write_text(str(card), encoding="utf-8")


_OPENING = """A network that zerosum quantized without data, kept as integers (`pip install 'zerosum[quantization]'`):

```python
import zerosum

network = zerosum.load("hf://{repository}")  # an ordinary torch.nn.Module; runs no code from here
```

(An architecture that timm does not know is to be given: `zerosum.load(..., into=network)`.) It was made by

```sh
{command}
```"""


def downloaded(address: str) -> Path:
    """The folder of ``hf://ORG/NAME``, ``@REVISION`` behind it or not, in the Hub's cache; only what ``load`` reads.

    Raises:
        ValueError: another form.
        ConnectionError: the Hub is out of reach, or has no such repository, and none is cached.
    """
    repository, _, revision = address.removeprefix(results.HUB).partition("@")
    if not 1 <= len(parts := repository.split("/")) <= 2 or not all(parts):
        raise ValueError(f"{address}: expected {results.HUB}ORG/NAME, with @REVISION behind it or not")
    wanted: dict[str, Any] = {"revision": revision or None, "allow_patterns": ["*.safetensors", "*.json"]}
    with _asking(address):
        return Path(snapshot_download(repository, etag_timeout=_TIMEOUT, library_name="zerosum", **wanted))


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """The Hub's client raises its own errors, requests' or httpx's, by version."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConnectionError(f"{what}: the Hub did not answer as expected ({first})") from error


def without_paths(config: Mapping[str, Any]) -> str:
    """The run's command, files and folders by their names alone."""
    files = {flag(name) for name in (*config["inputs"], "out", "resume")}
    words = shlex.split(config["command"])
    for place, word in enumerate(words):
        name, given, value = word.partition("=")
        if given and name in files:
            words[place] = f"{name}={Path(value).name}"
        elif word.endswith(".py") or (place and words[place - 1] in files):
            words[place] = Path(word).name
    return shlex.join(words)


def _of_the_result(kind: results.Kind, folder: Path, destination: Path) -> list[str]:
    found = []
    for title, text, content in kind.sections(folder):
        if isinstance(content, Figure):
            name = f"{title.lower().replace(' ', '-')}.png"
            content.savefig(destination / _PICTURES / name, dpi=120, metadata={"Software": None})
            shown = f"![{title}]({_PICTURES}/{name})"
        else:
            shown = _table(content)
        found.append(f"## {title}\n\n{text}\n\n{shown}".rstrip())
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in cells)


def _of_the_game(folder: Path, destination: Path) -> list[str]:
    """Curves, and the last pictures of what was made; of all matches."""
    found = []
    for place in [folder, *sorted(path.parent for path in folder.glob(f"*/{run_folder.GAME}"))]:
        name = "" if place == folder else f"{place.name}-"
        shown = {"The game": place / run_folder.GAME}
        if pictures := drawn(place):
            shown["What the players made"] = pictures[max(pictures)]
        for title, picture in shown.items():
            if picture.is_file():
                shutil.copyfile(picture, destination / _PICTURES / f"{name}{picture.name}")
                heading = f"{title} of {place.name}" if name else title
                found.append(f"## {heading}\n\n![{heading}]({_PICTURES}/{name}{picture.name})")
    return found
