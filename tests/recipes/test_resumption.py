"""What a run that goes on may differ in, and what it may not."""

import json
import os
import shutil
import signal

import pytest
import torch
from PIL import Image

from tests.processes import finish, start, wait_for_rounds
from zerosum.players import load_backbone
from zerosum.recipes import saddle
from zerosum.runs.run import main

SHORT = ["--rounds", "6", "--warmup", "2", "--calibration", "1", "--gap-every", "2", "--batch-size", "4"]
SHORT += ["--block-steps", "0"]
QUICK = ["--dynamics", "simultaneous", "--rounds", "3"]  # of saddle

RECIPE = """
from zerosum.recipes.saddle import Config, recipe
"""


def unfinished(folder):
    """As a run that was killed after its last checkpoint."""
    (folder / "summary.json").unlink()
    return folder


def test_a_run_of_another_recipe_is_refused(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["saddle", *QUICK, "--out", str(run)]) == 0
    unfinished(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "saddle.py").write_text(RECIPE)
    for other in ("gan_ring", str(tmp_path / "saddle.py")):
        assert main([other, "--resume", str(run)]) == 2
        error = capsys.readouterr().err
        assert f"a run of the recipe saddle, not of {other}" in error
        assert len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main([saddle.__file__, "--resume", str(run)]) == 0  # the installed one, by its path


def test_a_recipe_of_the_same_stem_elsewhere_is_another_and_an_edited_one_is_said_to_be(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(RECIPE)
    run, mine = tmp_path / "run", tmp_path / "a" / "mine.py"
    assert main([str(mine), *QUICK, "--out", str(run)]) == 0
    assert main([str(tmp_path / "b" / "mine.py"), "--resume", str(unfinished(run))]) == 2
    assert f"of the recipe {mine}" in capsys.readouterr().err
    mine.write_text(RECIPE + "# edited\n")
    assert main([str(mine), "--resume", str(run)]) == 0
    assert "mine.py was edited since" in capsys.readouterr().err
    config = json.loads((run / "config.json").read_text())
    assert config["resumed"][0]["recipe_sha256"] != config["recipe_sha256"]
    assert main([str(mine), "--resume", str(unfinished(run))]) == 0
    assert "edited" not in capsys.readouterr().err  # it is the one that played last


@pytest.fixture(scope="module")
def with_weights(tmp_path_factory):
    """An unfinished run, started with relative paths."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.save(load_backbone("digits_resnet8").state_dict(), "w.pth")
        for name in range(10):
            (folder / "data" / str(name)).mkdir(parents=True)
            Image.new("L", (8, 8), 20 * name).save(folder / "data" / str(name) / "x.png")
        assert main(["adasg", *SHORT, "--weights", "w.pth", "--data", "data", "--out", "run"]) == 0
    unfinished(folder / "run")
    return folder


@pytest.fixture
def place(with_weights, tmp_path):
    """A copy of it, elsewhere: what it reads is still where it was."""
    shutil.copytree(with_weights / "run", tmp_path / "run")
    return tmp_path


def test_relative_paths_hold_from_another_directory(place, with_weights):
    assert main(["adasg", "--resume", str(place / "run")]) == 0
    kept = json.loads((place / "run" / "config.json").read_text())["inputs"]
    assert kept["weights"]["path"] == str(with_weights / "w.pth")
    assert kept["data"]["files"] == 10


def test_weights_that_changed_are_refused_and_moved_ones_may_be_given_anew(place, with_weights, capsys):
    run, other = place / "run", place / "other.pth"
    state = load_backbone("digits_resnet8").state_dict()
    torch.save(state | {"linear.bias": state["linear.bias"] + 1}, other)
    assert main(["adasg", "--resume", str(run), "--weights", str(other)]) == 2
    error = capsys.readouterr().err
    assert f"--weights {other} is not what the run was started with" in error
    assert len(error.splitlines()) == 1

    moved = shutil.copy(with_weights / "w.pth", place / "moved.pth")
    assert main(["adasg", "--resume", str(run), "--weights", str(moved), "--bits", "w8a8"]) == 2
    assert "--bits w8a8 differs" in capsys.readouterr().err
    assert main(["adasg", "--resume", str(run), "--weights", str(moved)]) == 0
    kept = json.loads((run / "config.json").read_text())
    assert kept["inputs"]["weights"]["path"] == kept["options"]["weights"] == str(moved)
    moved.write_bytes(other.read_bytes())
    assert main(["adasg", "--resume", str(unfinished(run))]) == 2
    assert f"--weights {moved} is not what" in capsys.readouterr().err
    moved.unlink()
    assert main(["adasg", "--resume", str(run)]) == 2
    assert f"--weights {moved}: it is gone" in capsys.readouterr().err


def test_data_that_changed_are_refused(place, with_weights, capsys):
    data = shutil.copytree(with_weights / "data", place / "data")
    shutil.copy(data / "0" / "x.png", data / "0" / "y.png")
    assert main(["adasg", "--resume", str(place / "run"), "--data", str(data)]) == 2
    assert "is not what the run was started with (11 files" in capsys.readouterr().err
    (data / "0" / "y.png").unlink()
    assert main(["adasg", "--resume", str(place / "run"), "--data", str(data)]) == 0


def test_payoffs_that_changed_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "game.csv").write_text("0,1\n2,0\n")
    assert main(["matrix_game", "--payoff", "~/game.csv", "--out=~/run"]) == 0
    assert (tmp_path / "run" / "summary.json").exists()
    unfinished(tmp_path / "run")
    (tmp_path / "game.csv").write_text("0,1\n3,0\n")
    assert main(["matrix_game", "--resume", "~/run"]) == 2
    assert "game.csv is not what the run was started with" in capsys.readouterr().err


TYPED = """
import math
from dataclasses import dataclass
from pathlib import Path
from zerosum.recipes import saddle
from zerosum.recipes.saddle import recipe as play

@dataclass(frozen=True)
class Part:
    reach: float = math.inf
    file: Path = Path("a")

@dataclass(frozen=True, kw_only=True)
class Config(saddle.Config):
    part: Part = Part()
    limit: float = math.nan
    where: Path = Path("x")

def recipe(config):
    assert isinstance(config.part, Part) and isinstance(config.part.file, Path), config
    assert isinstance(config.where, Path) and config.part.reach == math.inf and math.isnan(config.limit), config
    return play(config)
"""


def test_options_of_any_type_are_the_same_after_a_resumption(tmp_path, capsys):
    (tmp_path / "typed.py").write_text(TYPED)
    run = tmp_path / "run"
    assert main([str(tmp_path / "typed.py"), *QUICK, "--where", "y", "--out", str(run)]) == 0
    assert main([str(tmp_path / "typed.py"), "--resume", str(unfinished(run))]) == 0, capsys.readouterr().err


def test_an_option_that_would_not_come_back_is_refused_at_the_start(tmp_path, capsys):
    text = TYPED.replace("where: Path = Path", "where: object = Path")
    (tmp_path / "typed.py").write_text(text)
    assert main([str(tmp_path / "typed.py"), "--rounds", "2", "--out", str(tmp_path / "run")]) == 2
    assert "--where x: an option of type object does not come back" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_weights_written_anew_in_the_meantime(tmp_path, capsys):
    """Between an interruption and its resumption."""
    weights, run = tmp_path / "w.pth", tmp_path / "run"
    state = load_backbone("digits_resnet8").state_dict()
    torch.save(state, weights)
    options = [*SHORT, "--rounds", "4000", "--weights", weights, "--out", run]
    process = start(tmp_path / "log", "adasg", *options)
    wait_for_rounds(process, run, 3)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process, tmp_path / "log")[0] == 130
    torch.save(state | {"linear.bias": state["linear.bias"] + 1}, weights)
    assert main(["adasg", "--resume", str(run)]) == 2
    assert "w.pth is not what the run was started with" in capsys.readouterr().err


def test_a_part_of_an_option_that_differs_is_named_as_it_is_typed(tmp_path, capsys):
    assert main(["adasg", *SHORT, "--out", str(tmp_path / "run")]) == 0
    run = unfinished(tmp_path / "run")
    assert main(["adasg", "--resume", str(run), "--weight-range", "minmax"]) == 2
    assert "--weight-range minmax differs from the run's auto" in capsys.readouterr().err
