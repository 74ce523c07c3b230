"""The site builds strictly, with no broken link, and every public name has its place in the reference."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zerosum
from zerosum import objectives, players, runs
from zerosum.recipes.adasg import Config

for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
    pytest.importorskip(needed)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("package", [zerosum, players, objectives, runs], ids=lambda package: package.__name__)
def test_every_public_name_has_an_anchor(site, package):
    pages = [page.read_text(encoding="utf-8") for page in site.glob("reference/*/index.html")]
    anchors = {anchor for page in pages for anchor in re.findall(r'id="([^"]+)"', page)}
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= anchors


def test_every_option_of_adasg_is_told(site):
    page = (site / "reference" / "recipes" / "index.html").read_text(encoding="utf-8")
    named = {anchor.rpartition(".")[2] for anchor in re.findall(r'id="(zerosum\.recipes\.[^"]+)"', page)}
    assert set(Config.__dataclass_fields__) <= named


def test_docstrings_show_neither_roles_nor_lost_text(site):
    text = "".join(page.read_text(encoding="utf-8") for page in site.glob("reference/*/index.html"))
    assert not re.search(r":(attr|class|data|exc|func|meth|mod):", text)
    assert "autoref " not in text
    assert "runs/&lt;recipe&gt;-&lt;date&gt;" in text
    assert re.search(r'<a [^>]*href="[^"]*#zerosum\.Watcher"[^>]*><code>zerosum\.Watcher</code>', text)


def test_the_readme_is_the_index_and_its_links_lead_to_pages(site):
    page = (site / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="([^"#:]*)"', page))
    assert {"games/", "quantization/", "coverage/", "runs/", "export/", "performance/", "CONTRIBUTING/"} <= links
    assert "Game-theoretic optimization with pluggable players" in page
