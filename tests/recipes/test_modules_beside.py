"""A recipe file imports the modules beside it, as a script does, wherever the command is given."""

import json
import sys

import pytest

from zerosum.runs.recipe import load
from zerosum.runs.run import main

RECIPE = """
{at_once}
from zerosum.recipes.saddle import Config, recipe as play

def recipe(config):
    {lazily}
    from dataclasses import replace
    return play(replace(config, rounds=ROUNDS))
"""
FAST = ["--dynamics", "simultaneous"]
IMPORTS = ["from helper import ROUNDS", "from parts.sizes import ROUNDS", "from bare.sizes import ROUNDS"]


def a_recipe(folder, rounds, imports, lazily):
    """Beside it a module, a package and a namespace package that know the number of rounds."""
    (folder / "parts").mkdir(parents=True)
    (folder / "bare").mkdir()
    for name in ("helper.py", "parts/sizes.py", "bare/sizes.py"):
        (folder / name).write_text(f"ROUNDS = {rounds}\n", encoding="utf-8")
    (folder / "parts" / "__init__.py").write_text("", encoding="utf-8")
    where = {"at_once": "" if lazily else imports, "lazily": imports if lazily else "pass"}
    (folder / "mine.py").write_text(RECIPE.format(**where), encoding="utf-8")
    return folder / "mine.py"


def played(run):
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {match["rounds"] for match in summary["matches"].values()}


@pytest.mark.parametrize("lazily", [False, True], ids=["at-once", "lazily"])
@pytest.mark.parametrize("imports", IMPORTS)
def test_recipes_with_modules_of_the_same_names_in_one_process(imports, lazily, tmp_path, monkeypatch):
    before = list(sys.path)
    first = a_recipe(tmp_path / "a", 2, imports, lazily)
    second = a_recipe(tmp_path / "b", 3, imports, lazily)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main([str(first), *FAST, "--out", "first"]) == 0
    assert main(["../b/mine.py", *FAST, "--out", "second"]) == 0
    assert (played(tmp_path / "elsewhere/first"), played(tmp_path / "elsewhere/second")) == ({2}, {3})
    assert second.exists()
    assert sys.path == before
    assert not {"helper", "parts", "parts.sizes", "bare", "bare.sizes"} & sys.modules.keys()


@pytest.mark.parametrize("imports", IMPORTS[:2])
def test_a_recipe_that_fails_leaves_nothing_for_the_next(imports, tmp_path):
    before = list(sys.path)
    first, second = (a_recipe(tmp_path / name, rounds, imports, False) for name, rounds in (("a", 2), ("b", 3)))
    first.write_text(first.read_text(encoding="utf-8").replace("return play", "raise KeyError"), encoding="utf-8")
    assert main([str(first), "--out", str(tmp_path / "first")]) == 1
    for end in (["--help"], ["--rounds", "many"]):  # these leave by SystemExit
        with pytest.raises(SystemExit):
            main([str(first), *end])
        assert sys.path == before
    assert main([str(second), *FAST, "--out", str(tmp_path / "second")]) == 0
    assert played(tmp_path / "second") == {3}
    (tmp_path / "b" / "helper.py").write_text("import no_such_module", encoding="utf-8")
    (tmp_path / "b" / "parts" / "sizes.py").write_text("import no_such_module", encoding="utf-8")
    assert main([str(second), "--out", str(tmp_path / "third")]) == 2
    assert sys.path == before


def test_loading_alone_leaves_the_path_as_it_was(tmp_path):
    before = list(sys.path)
    assert load(str(a_recipe(tmp_path / "a", 2, IMPORTS[0], False))).name == "mine"
    assert sys.path == before
    del sys.modules["helper"]


def test_an_interrupted_run_finds_them_again(tmp_path, monkeypatch):
    recipe = a_recipe(tmp_path / "a", 4, IMPORTS[0], True)
    run = tmp_path / "run"
    assert main([str(recipe), *FAST, "--out", str(run)]) == 0
    (run / "summary.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["a/mine.py", "--resume", "run"]) == 0
    assert played(run) == {4}
