"""Sweeps: every cell once, whatever becomes of those who play them."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tests.processes import lines
from zerosum.runs import sweep
from zerosum.runs.cells import Space, words_of
from zerosum.runs.children import lock_of
from zerosum.runs.run import main as run
from zerosum.runs.trials import Trials

RECIPE = '''
"""A point that noise moves, slowly."""

import time
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD

from zerosum import Game, Match, Player, Simultaneous
from zerosum.runs import Experiment, Options, Outcome


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A walk."""

    rounds: int = 20
    step: float = 0.1
    wait: float = 0.0
    noisy: bool = True

    def check(self):
        super().check()
        self.check_at_least(0, "wait")


def recipe(config):
    point = nn.Linear(3, 1)

    def play(x):
        time.sleep(config.wait)
        return point(x).square().mean() * (1 if config.step < 1 else float("nan"))

    sample = (lambda: torch.randn(4, 3)) if config.noisy else (lambda: torch.ones(4, 3))
    game = Game([Player("point", point, SGD(point.parameters(), config.step), "minimize")], play, lambda f: f, sample)

    def finish(matches, folder):
        save_file(point.state_dict(), folder / "point.safetensors")
        return Outcome({"weight": point.weight.sum().item()}, "walked")

    return Experiment.of(Match(game, Simultaneous(), config.rounds), finish)
'''


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "walk.py"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def started(recipe, out, *options):
    line = [sys.executable, "-m", "zerosum.sweep", recipe, "--out", out, *options]
    return subprocess.Popen([str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(found, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def journals(out):
    return list(out.glob("*/metrics.jsonl"))


@pytest.mark.parametrize("seeds", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_cells_by_two_workers_of_whom_one_is_killed_with_its_child(seeds, recipe, tmp_path):
    out, over = tmp_path / "sweep", ["--over", "step=0.1,0.2", "--over", f"seed={','.join(map(str, range(seeds)))}"]
    line = (recipe, out, *over, "--wait", "0.02", "--checkpoint-every", "0")
    first, second = started(*line), started(*line)
    wait_for(lambda: len(journals(out)) >= 2, "two runs have begun")
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True).stdout.split()
    for process in (first.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    first.wait(60)
    told, _ = second.communicate(timeout=120)
    assert second.returncode == 0, told
    again = started(*line)
    told, _ = again.communicate(timeout=60)
    assert again.returncode == 0, told
    assert "played" not in told  # there was nothing left
    folders = sorted(path.parent for path in out.glob("*/summary.json"))
    assert len(folders) == 2 * seeds
    resumed = [len(json.loads((folder / "config.json").read_text())["resumed"]) for folder in folders]
    assert sum(resumed) <= 1  # the killed one, where it had begun
    assert all([line["round"] for line in lines(folder)] == list(range(21)) for folder in folders)
    alone = tmp_path / "alone"
    assert run([str(recipe), "--step", "0.2", "--seed", "1", "--out", str(alone)]) == 0
    swept, one = (load_file(folder / "point.safetensors") for folder in (out / "step_0.2-seed_1", alone))
    assert all((swept[name] == one[name]).all() for name in one)
    assert "step 0.1" in (out / "compare.csv").read_text()
    assert (out / "compare.png").stat().st_size > 1000


def test_a_cell_that_diverges_is_told_and_stops_no_other(recipe, tmp_path, capfd):
    line = [str(recipe), "--over", "step=2,0.1", "--over", "noisy=false", "--out", str(tmp_path / "sweep")]
    assert sweep.main(line) == 3
    printed = capfd.readouterr()
    assert "step=2 noisy=false: exit code 3, see " in printed.err
    assert [path.parent.name for path in tmp_path.glob("sweep/*/summary.json")] == ["step_0.1-noisy_false"]
    assert sweep.main(line) == 3  # and is not tried again
    assert "played" not in capfd.readouterr().out
    (tmp_path / "sweep" / "step_2-noisy_false.log").unlink()
    assert sweep.main(line) == 3
    assert "2 of 2: step=2 noisy=false: exit code 3" in capfd.readouterr().out


def test_a_sweep_that_is_terminated_goes_on(recipe, tmp_path):
    out = tmp_path / "sweep"
    line = (recipe, out, "--over", "seed=0,1", "--wait", "0.1", "--workers", "2")
    first = started(*line)
    wait_for(lambda: journals(out), "a run has begun")
    time.sleep(0.5)
    first.terminate()
    told, _ = first.communicate(timeout=60)
    assert first.returncode == 130, told
    assert "interrupted; go on with" in told
    assert f"-m zerosum.sweep {recipe} --out {out} --over seed=0,1" in told
    again = started(*line)
    told, _ = again.communicate(timeout=60)
    assert again.returncode == 0, told
    assert len(list(out.glob("*/summary.json"))) == 2


def test_a_run_whose_worker_was_killed_and_that_plays_on_is_left_to_it(recipe, tmp_path):
    out = tmp_path / "sweep"
    line = [str(recipe), "--over", "seed=0,1", "--rounds", "2", "--out", str(out)]
    assert sweep.main(line) == 0
    (out / "sweep.log").unlink()
    shutil.rmtree(out / "seed_1")
    with lock_of(out / "seed_1") as lock:
        program = [sys.executable, "-c", "import time; time.sleep(3)"]
        orphan = subprocess.Popen(program, pass_fds=(lock.fileno(),))
    assert sweep.main(line) == 0
    assert orphan.poll() == 0
    assert (out / "seed_1" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "OUT"], "--over: expected at least one option"),
        (["--over", "seed=0,1"], "--out: expected a folder"),
        (["--over", "seed", "--out", "OUT"], "--over seed: expected NAME=VALUE"),
        (["--over", "seed=0,0", "--out", "OUT"], "--over seed=0,0: expected one value or more, each once"),
        (["--over", "seed=", "--out", "OUT"], "--over seed=: expected one value or more"),
        (["--over", "seed=0", "--over", "seed=1", "--out", "OUT"], "seed is given twice"),
        (["--over", "out=a,b", "--out", "OUT"], "--over out: every run has a folder of its own"),
        (["--over", "seed=0", "--seed", "1", "--out", "OUT"], "--seed is given for all runs too"),
        (["--over", "wait=-1,0", "--out", "OUT"], "--wait -1.0: expected a finite number, at least 0"),
        (["--over", "seed=0", "--workers", "0", "--out", "OUT"], "--workers 0: expected"),
        (["--over", "seed=0", "--budget", "0", "--out", "OUT"], "--budget 0: expected a number of runs"),
        (["--over", "seed=0", "--by", "weight", "--out", "OUT"], "--by weight: only of a search"),
        (["--over", "seed=0", "--workers", "many", "--out", "OUT"], "invalid int value: 'many'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(arguments, said, recipe, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert sweep.main([str(recipe), *(str(out) if word == "OUT" else word for word in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("arguments", [["--over", "seed=zero"], ["--over", "sed=1"]])
def test_options_that_the_recipe_does_not_take_are_refused_too(arguments, recipe, tmp_path):
    with pytest.raises(SystemExit) as ended:
        sweep.main([str(recipe), *arguments, "--out", str(tmp_path / "sweep")])
    assert ended.value.code == 2
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_another_sweep_is_refused(recipe, tmp_path, capsys):
    line = [str(recipe), "--rounds", "1", "--out", str(tmp_path / "sweep")]
    assert sweep.main([*line, "--over", "seed=0"]) == 0
    assert sweep.main([*line, "--over", "seed=0,1"]) == 2
    assert "the folder holds another sweep" in capsys.readouterr().err


def test_a_file_says_the_same_as_a_line(recipe, tmp_path, capsys):
    file = tmp_path / "walk.toml"
    file.write_text(
        f'recipe = "{recipe}"\nout = "{tmp_path}/sweep"\n[over]\nseed = [0]\nnoisy = [false]\n[options]\nrounds = 2\n'
    )
    assert sweep.main([str(file)]) == 0
    assert json.loads((tmp_path / "sweep" / "seed_0-noisy_false" / "config.json").read_text())["options"]["rounds"] == 2
    file.write_text('recipe = "adasg"\nrounds = 3\n')
    assert sweep.main([str(file)]) == 2
    assert "rounds = 3: expected recipe, out, workers, budget, by, [over] and [options]" in capsys.readouterr().err


def test_a_search_plays_as_many_runs_as_it_may_and_shows_the_best(recipe, tmp_path, capsys):
    out = tmp_path / "search"
    line = [str(recipe), "--over", "step=0.01,0.1,0.5", "--over", "rounds=1,2,3,4", "--budget", "4", "--out", str(out)]
    assert sweep.main([*line, "--by", "weight,rounds"]) == 0
    found = [json.loads(path.read_text()) for path in out.glob("*/summary.json")]
    assert 1 <= len(found) <= 4  # Optuna may ask for one again
    assert capsys.readouterr().out.count("played") == len(found)
    figures = {(one["weight"], one["rounds"]) for one in found}
    best = [x for x in figures if not any(y != x and y[0] <= x[0] and y[1] <= x[1] for y in figures)]
    with open(out / "compare.csv", newline="") as file:
        assert len(next(csv.reader(file))) == 1 + len(best)
    assert sweep.main([*line, "--by", "weight,rounds"]) == 0
    assert "played" not in capsys.readouterr().out
    other = [*line[:-1], str(tmp_path / "other")]
    assert sweep.main([*other, "--by", "accuracy"]) == 2
    assert "its summary has no number accuracy; expected one of weight, rounds" in capsys.readouterr().err


def test_a_trial_that_another_worker_is_choosing_is_no_cell_yet(tmp_path):
    trials = Trials(Space("walk.py", {"step": ("0.1",), "rounds": ("1",)}, (), tmp_path), budget=2, by=["weight"])
    begun = trials.study.ask()
    begun.suggest_categorical("step", ["0.1"])
    assert trials.cells() == []
    begun.suggest_categorical("rounds", ["1"])
    assert [cell.values for cell in trials.cells()] == [{"step": "0.1", "rounds": "1"}]


def test_a_trial_whose_worker_was_killed_while_it_chose_is_none_of_the_budget(tmp_path):
    trials = Trials(Space("walk.py", {"step": ("0.1",), "rounds": ("1",)}, (), tmp_path), budget=1, by=["weight"])
    trials.study.ask().suggest_categorical("step", ["0.1"])
    taken = [trials.take() for _ in range(2)]
    assert [cell and cell[1].values for cell in taken] == [{"step": "0.1", "rounds": "1"}, None]
    assert trials.failed() == {}


def test_a_trial_that_was_taken_for_nobodys_is_told_without_harm(tmp_path):
    space = Space("matrix_game", {"seed": ("0",)}, (), tmp_path)
    one, other = Trials(space), Trials(space)
    trial, cell = one.take()
    other.take_up_again([cell])  # before the first has locked it
    one.tell(trial, cell, 3)
    again, same = other.take()
    assert (same, again.number) == (cell, trial.number + 1)
    other.tell(again, same, 3)
    (tmp_path / "seed_0.log").touch()
    assert one.failed() == {cell.folder: 3}


def test_an_option_of_parts_is_swept_part_by_part():
    assert words_of("layer_bits:blocks-1.*", "w4a8") == ["--layer-bits", "blocks-1.*=w4a8"]


def test_without_optuna_the_install_line_is_said(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert sweep.main([str(recipe), "--over", "seed=0", "--out", str(tmp_path / "sweep")]) == 2
    assert "pip install 'zerosum[sweep]'" in capsys.readouterr().err
