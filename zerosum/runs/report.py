"""``python -m zerosum.report RUN_DIR``: one page that says what was asked, what came of it, and why it can be believed.

The page (report.html) holds all that it shows: it opens offline, and can be sent to somebody.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jinja2
import tyro
from matplotlib.figure import Figure
from PIL import Image

from zerosum.runs import results, run_folder
from zerosum.runs.curves import draw_panel, marks, panels
from zerosum.runs.files import write_whole
from zerosum.runs.inputs import expand
from zerosum.runs.messages import attempt, flag, guarded, output, printable, refuse
from zerosum.runs.options import flat
from zerosum.runs.watchers.journal import read as read_journal
from zerosum.runs.watchers.pictures import drawn

_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST_PICTURE = 250_000  # bytes; larger ones are made smaller
_PIXELS = 900  # across, then


@dataclass(frozen=True)
class Options:
    """Write a run's report: what was asked, accuracy, curves, pictures, command and versions, in one page."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run; it may still be played."""
    out: Path | None = None
    """File to write. Default: report.html in that folder."""


@dataclass(frozen=True)
class _Picture:
    source: str
    caption: str
    description: str = ""


@dataclass(frozen=True)
class _Section:
    title: str
    text: str = ""
    images: Sequence[_Picture] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    code: str = ""
    narrow: bool = False


def write_report(folder: Path, path: Path) -> None:
    """Write the report of the run in ``folder``.

    Raises:
        FileNotFoundError: no run there.
        ValueError: one of its files cannot be read.
        OSError: the report cannot be written.
    """
    config = run_folder.read_config(folder)
    summary = run_folder.read_summary_so_far(folder)
    sections = [*_of_the_result(folder, summary), *_of_the_matches(folder), *_of_its_making(config)]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True)
    title = f"{config['recipe']}: {folder.resolve().name}"
    page = environment.get_template("report.html").render(title=title, summary=_in_words(summary), sections=sections)
    write_whole(path, printable(page).encode())


def _in_words(summary: Mapping[str, Any]) -> str:
    if not summary:
        return "This run is not finished: what follows is what there is so far."
    matches = summary.get("matches") or {"": summary}
    said = []
    for name, match in matches.items():
        rewinds = f", {match['rewinds']} times put back because it diverged" if match["rewinds"] else ""
        verdict = f"; {match['reason']}" if match["reason"] else ""
        said.append(
            f"{name}{': ' if name else ''}{match['rounds']} rounds in {match['seconds']:.0f} s{rewinds}{verdict}."
        )
    missing = [*summary.get("failed", ()), *([summary[key]] if (key := run_folder.UNFINISHED) in summary else ())]
    return " ".join([*said, *(f"Not made: {what}." for what in missing)])


def _of_the_result(folder: Path, summary: Mapping[str, Any]) -> list[_Section]:
    """What the kind of result has to show, and what the recipe drew."""
    found = []
    if summary.get("result") is not None:
        for title, text, content in results.kind_of(folder).sections(folder):
            if isinstance(content, Figure):
                found.append(_Section(title, text, images=[_svg(content, title)]))
            else:
                found.append(_Section(title, text, rows=content))
    pictures = [path for path in sorted(folder.glob("*.png")) if path.name != run_folder.GAME]
    if pictures:
        images, missing = _pictures({path.stem: path for path in pictures})
        found.append(_Section("What came of it", missing, images=images))
    return found


def _of_the_matches(folder: Path) -> list[_Section]:
    """Curves and pictures of the match, or of each of an experiment's stages."""
    found = []
    for path in sorted([*folder.glob(run_folder.METRICS), *folder.glob(f"*/{run_folder.METRICS}")]):
        name = "" if path.parent == folder else f" of {path.parent.name}"
        lines = read_journal(path)
        marked = marks(lines)
        text = "Curves are means over neighbouring rounds, within their least and greatest values."
        if marked:
            text += " Dotted lines: " + "; ".join(f"round {mark.round}, {mark.what}" for mark in marked[:8]) + "."
        images = []
        for panel in panels(lines):
            figure = Figure(figsize=(5.4, 2.6), layout="constrained")
            draw_panel(axis := figure.subplots(), panel, marked)
            axis.set_xlabel("round")
            images.append(_svg(figure, panel.title))
        found.append(_Section(f"The game{name}", text, images=images))
        pictures = drawn(path.parent)
        if pictures:
            images, missing = _pictures({f"round {round}": picture for round, picture in pictures.items()})
            text = " ".join(filter(None, [*(image.description for image in images[:1]), missing]))
            found.append(_Section(f"What the players made{name}", text, images=images, narrow=True))
    return found


def _of_its_making(config: Mapping[str, Any]) -> list[_Section]:
    options = [{"option": flag(name), "value": value} for name, value in flat(config["options"]).items()]
    made = {"git commit": config["git_commit"], "device": config["device"], "threads": config["threads"]}
    versions = [{"": name, "version": value} for name, value in (config["versions"] | made).items()]
    commands = "\n".join([config["command"], *(resumed["command"] for resumed in config["resumed"])])
    return [
        _Section("The command", code=commands),
        _Section("What was asked", rows=options),
        _Section("Versions", rows=versions),
    ]


def _svg(figure: Figure, caption: str) -> _Picture:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return _Picture(_embedded(file.getvalue(), "image/svg+xml"), caption)


def _pictures(paths: Mapping[str, Path]) -> tuple[list[_Picture], str]:
    """Those that can be read, by their captions, and what is said of the others."""
    failed: list[str] = []
    tried = [
        attempt(f"the picture {path.name}", partial(_picture, path, caption), failed, "the report")
        for caption, path in paths.items()
    ]
    return [picture for picture in tried if picture is not None], " ".join(f"Not shown: {what}." for what in failed)


def _picture(path: Path, caption: str) -> _Picture:
    """The picture, and what it says of itself, in PNG's own words."""
    content, file = path.read_bytes(), io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        smaller, description = image.convert("RGB"), str(image.info.get("Description", ""))
    if len(content) <= _LARGEST_PICTURE:
        return _Picture(_embedded(content, "image/png"), caption, description)
    smaller.thumbnail((_PIXELS, 4 * _PIXELS))
    smaller.save(file, "JPEG", quality=85)
    return _Picture(_embedded(file.getvalue(), "image/jpeg"), caption, description)


def _embedded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for bad input."""
    parse: Any = tyro.cli
    options: Options = parse(Options, args=arguments, prog="python -m zerosum.report")
    folder = expand(options.run_dir)
    path = expand(options.out) if options.out is not None else folder / "report.html"
    try:
        write_report(folder, path)
    except (ValueError, OSError, ImportError) as error:
        return refuse(error)
    output().print(str(path), soft_wrap=True)
    return 0
