"""What ``mkdocs build`` does besides: two more pages, four folders as one package, docstrings' roles as links."""

import re
import shutil
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "build" / "docs" / "zerosum"  # read and never imported; mkdocs.yml has its folder under paths
PACKAGE.mkdir(parents=True, exist_ok=True)  # mkdocstrings passes over a path that is not there when it begins
TOKEN = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`([\w.]+)`|(`+).*?\2|<", re.DOTALL)


def on_pre_build(config):
    shutil.rmtree(PACKAGE, ignore_errors=True)
    for folder in ("zerosum", "players", "objectives", "recipes"):
        shutil.copytree(ROOT / folder, PACKAGE / folder.removeprefix("zerosum"), ignore=shutil.ignore_patterns("*.pyc"))


def on_files(files, config):
    for name in ("README.md", "CONTRIBUTING.md"):  # the first becomes the index
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8").replace("](docs/", "](")))


class Roles(griffe.Extension):
    def on_object(self, *, obj, **_):
        def written(token):
            if (name := token[1]) is None:
                return "&lt;" if token[0] == "<" else token[0]  # <date> is text, and not HTML
            first, dot, rest = name.partition(".")
            try:
                found = obj.resolve(first) + dot + rest
            except griffe.NameResolutionError:
                found = name
            return f'<autoref identifier="{found}" optional><code>{name}</code></autoref>'  # optional: else plain code

        if obj.docstring:
            obj.docstring.value = TOKEN.sub(written, obj.docstring.value)
