"""Installed, the product is one name, and nobody else's folders get in its way."""

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

import zerosum
from zerosum.runs import recipe

REPOSITORY = Path(__file__).parents[1]
OTHERS = ("players", "objectives", "recipes", "runs", "common")


@pytest.fixture
def foreign(tmp_path):
    """A working directory with packages of its own by names that ours have inside."""
    for name in OTHERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not this one')\n", encoding="utf-8")
    return tmp_path


def python(folder, *arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMANDS = """
import runpy, sys

def command(module, *arguments):
    sys.argv = ["python -m", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, (module, ended.code)

options = ["--rounds", "2", "--warmup", "1", "--calibration", "1", "--block-steps", "1", "--pool", "8"]
command("zerosum.run", "adasg", *options, "--out", "run")
command("zerosum.report", "run")
command("zerosum", "compare", "run", "--out", "compared")
command("zerosum.export", "run", "--format", "pt2")

import zerosum

assert zerosum.load("run") is not None
"""


def test_folders_in_the_working_directory_shadow_nothing(foreign):
    """In one process, for each takes seconds to start: what counts is that Python looks here first."""
    python(foreign, "-c", COMMANDS)
    assert json.loads((foreign / "run" / "summary.json").read_text(encoding="utf-8"))["rounds"] == 2 + 5  # blocks


def test_the_engine_alone_is_imported_for_a_game_of_two_numbers():
    code = "import sys, zerosum; zerosum.Game; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python(".", "-c", code).split())
    assert not loaded & {"rich", "matplotlib", "filelock", "tyro", "pydantic", "timm", "torchvision", "PIL", "jinja2"}
    assert "torch" in loaded


def test_what_there_is_to_say_without_torch_is_said_without():
    code = "import sys, zerosum; from zerosum.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    said = python(".", "-c", code)
    assert "zerosum COMMAND" in said
    assert said.split()[-1] == "False"


def test_public_names_are_where_they_are_said_to_be():
    code = "import zerosum; from zerosum import *; print(*set(dir(zerosum)) & set(globals()))"
    assert set(zerosum.__all__) <= set(python(".", "-c", code).split())
    with pytest.raises(AttributeError, match="has no attribute 'Gmae'"):
        zerosum.Gmae  # noqa: B018


QUANTIZATION = ("timm", "torchvision", "einops", "safetensors", "huggingface_hub", "sklearn")
GAMES_ALONE = f"""
import sys

for name in {QUANTIZATION}:
    sys.modules[name] = None  # as if it were not installed

import zerosum
from zerosum.runs.command import main

for game in (["saddle", "--rounds", "2"], ["matrix_game", "--rounds", "2"], ["gan_ring", "--rounds", "2"]):
    assert main(["run", *game, "--out", game[0]]) == 0, game
    assert main(["report", game[0]]) == 0, game
assert main(["compare", "saddle", "gan_ring", "--out", "compared"]) == 0
assert main(["run", "adasg"]) == main(["run", "robust_digits"]) == main(["export", "--help"]) == 2
for ask in (lambda: zerosum.quantize, lambda: zerosum.push_to_hub, lambda: zerosum.load("hf://org/name")):
    try:
        ask()
    except ImportError as error:
        print(error, file=sys.stderr)
"""


def test_games_need_no_package_of_quantization(tmp_path):
    done = subprocess.run([sys.executable, "-c", GAMES_ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 6, said
    for line, what in zip(
        said,
        ("recipe adasg", "recipe robust_digits", "a result of kind", "zerosum.quantize", "zerosum.push", "hf://"),
        strict=True,
    ):
        assert what in line
        assert re.search(r" needs the package \S+; pip install 'zerosum\[quantization\]'$", line), line


def test_the_long_description_leads_nowhere_that_is_not_there():
    page = metadata.metadata("zerosum").get_payload()
    assert "docs/games.md" in page
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links
    assert all(link.startswith("https://") for link in links)


HELP = """
import io, sys
from contextlib import redirect_stdout, suppress
from zerosum.runs import recipe
from zerosum.runs.command import main

with redirect_stdout(io.StringIO()):
    for name in recipe.installed():
        with suppress(SystemExit):
            main(["run", name, "--help"])
print(*sys.modules)
"""


def test_help_imports_nothing_that_it_does_not_use():
    """Which would take seconds; what is there belongs to torch, rich, tyro and pydantic."""
    loaded = set(python(".", "-c", HELP).split())
    slow = {"timm", "torchvision", "torch._dynamo", "matplotlib", "sklearn", "scipy", "huggingface_hub", "onnx"}
    assert not loaded & slow
    assert "zerosum.recipes.adasg" in loaded


def test_recipes_and_results_are_found_by_entry_points():
    assert {"adasg", "saddle", "matrix_game"} <= set(recipe.installed())
    ours = [*metadata.entry_points(group="zerosum.recipes"), *metadata.entry_points(group="zerosum.results")]
    assert all(entry.value.startswith("zerosum.") for entry in ours)
    assert recipe.load("adasg").installed


def test_a_name_that_two_packages_bring_is_not_guessed(monkeypatch):
    other = metadata.EntryPoint("adasg", "elsewhere.adasg", "zerosum.recipes")
    both = [*metadata.entry_points(group="zerosum.recipes", name="adasg"), other]
    monkeypatch.setattr(recipe, "entry_points", lambda **_: both)
    with pytest.raises(ValueError, match=r"packages bring 2 of that name .*elsewhere\.adasg"):
        recipe.load("adasg")


def test_commands_have_one_door():
    listed = python(".", "-m", "zerosum", "--help")
    assert all(name in listed for name in ("run", "report", "compare", "export"))


def test_one_version_is_said_everywhere():
    root = Path(__file__).resolve().parents[1]
    assert zerosum.__version__ == metadata.version("zerosum")
    for file, before in {"pyproject.toml": 'version = "', "CITATION.cff": "version: ", "CHANGELOG.md": "## "}.items():
        assert before + zerosum.__version__ in (root / file).read_text(encoding="utf-8"), file


@pytest.mark.slow
def test_the_wheel_in_an_empty_environment(tmp_path):
    """Built, installed with what it asks for and nothing else, and used from a directory that knows nothing of us:
    without an extra for games, and then with the one for quantization."""
    here, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    python(REPOSITORY, *pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("zerosum-*.whl")
    venv.create(here, with_pip=True)
    commands = here / ("Scripts" if sys.platform == "win32" else "bin")

    def run(*command):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        done = subprocess.run(
            [commands / command[0], *command[1:]], cwd=elsewhere, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("python", *pip, "install", str(wheel))
    absent = "from importlib.util import find_spec; print([name for name in %r if find_spec(name)])"
    assert run("python", "-c", absent % (QUANTIZATION,)).strip() == "[]"
    run("zerosum", "run", "gan_ring", "--rounds", "2", "--out", "ring")
    run("python", *pip, "install", f"{wheel}[quantization]")
    told = "import zerosum; print(zerosum.__version__, zerosum.__file__)"
    version, file = run("python", "-c", told).split()
    assert version == metadata.version("zerosum")
    assert Path(file).is_relative_to(here)
    options = ["--rounds", "2", "--warmup", "1", "--calibration", "1", "--block-steps", "1", "--pool", "8"]
    run("zerosum", "run", "adasg", *options, "--out", "run")
    run("python", "-m", "zerosum", "report", "run")
    run("zerosum", "export", "run", "--format", "pt2")
    assert {"summary.json", "report.html", "quantized.pt2"} <= {path.name for path in (elsewhere / "run").iterdir()}
