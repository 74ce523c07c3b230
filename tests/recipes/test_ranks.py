"""``zerosum.run`` on several ranks: one run, whatever happens to one of them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import lines, wait_for_rounds
from tests.ranks import ended, played, run, started
from zerosum import load
from zerosum.players import accuracy, load_data, predict
from zerosum.runs.recipe import installed
from zerosum.runs.run import main

GAME = ("adasg", "--rounds", "24", "--warmup", "6", "--block-steps", "4", "--pool", "32", "--measure-every", "12")
GAME += ("--renewals", "0", "--calibration", "2")
ROUNDS = 24 + 5  # in which blocks answer

FAULTY = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD

from zerosum import Game, Match, Player, Simultaneous, ranks
from zerosum.runs import Experiment, Options


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A game in which the second rank comes to no number in its fifth round, or fails."""

    rounds: int = 10
    fails: bool = False


def recipe(config):
    point = nn.Linear(1, 1)

    def payoff(play):
        broken = game.round == 4 and ranks.index() == 1 and ranks.are_apart()
        if broken and config.fails:
            raise LookupError("nobody expected this")
        return play.sum() * (float("nan") if broken else 1.0)

    game = Game(
        [Player("point", point, SGD(point.parameters(), lr=0.1), "minimize")],
        lambda x: point(x).square(),
        payoff,
        lambda: torch.randn(4, 1),
    )
    return Experiment.of(Match(game, Simultaneous(), config.rounds))
'''


def by_ranks(folder, *arguments, name="run", deadline=120):
    """Exit codes, and what each printed."""
    log = folder / f"{name}.log"
    codes = ended(started(run, (log, *arguments), folder), deadline)
    return codes, [(folder / f"{name}.log{rank}").read_text() for rank in range(2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    codes, printed = by_ranks(folder, *GAME, "--out", folder / "run")
    assert codes == [0, 0], printed
    return folder / "run", printed


def test_two_ranks_leave_one_run(whole):
    folder, (first, second) = whole
    assert [line["round"] for line in lines(folder)] == list(range(ROUNDS + 1))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["ranks"], summary["ranks_differ_by"], summary["rounds"]) == (2, 0.0, ROUNDS)
    assert "one game, played by 2 ranks; of a batch of 16, each has 8" in first
    assert f"kept in {folder}" in first
    assert second == ""
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["run"]


def test_ranks_measure_together_what_one_measures(whole):
    folder, _ = whole
    network = load(folder)
    found = accuracy(*predict(network, load_data("digits", network), torch.device("cpu")))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["after_top1"], summary["after_top5"]) == (found["top1"], found["top5"])
    assert summary["teacher_top1"] == pytest.approx(99.444, abs=1e-3)


def same_network(one, other):
    one, other = (load_file(folder / "quantized.safetensors") for folder in (one, other))
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("told", [(0, 1), (1,)], ids=["the group", "one of them"])
def test_ranks_that_are_terminated_stop_together_and_go_on_to_the_same_end(told, whole, tmp_path):
    folder = tmp_path / "run"
    processes = started(run, (tmp_path / "log", *GAME, "--out", folder), tmp_path)
    wait_for_rounds(processes[0], folder, 1)
    for rank in told:
        processes[rank].terminate()
    assert ended(processes) == [130, 130]
    first, second = ((tmp_path / f"log{rank}").read_text() for rank in range(2))
    assert f"-m zerosum.run adasg --resume {folder}" in first
    assert second == ""
    codes, printed = by_ranks(tmp_path, "adasg", "--resume", folder, name="again")
    assert codes == [0, 0], printed
    assert same_network(folder, whole[0])


def test_a_rank_that_is_killed_leaves_no_other_waiting_and_the_same_line_goes_on(whole, tmp_path):
    line = (*GAME, "--checkpoint-every", "0", "--out", tmp_path / "run", "--resume", "auto")
    processes = started(run, (tmp_path / "log", *line), tmp_path)
    wait_for_rounds(processes[0], tmp_path / "run", 1)
    time.sleep(0.5)
    processes[1].kill()
    assert ended(processes)[0] != 0
    codes, printed = by_ranks(tmp_path, *line, name="again")
    assert codes == [0, 0], printed
    assert same_network(tmp_path / "run", whole[0])
    assert by_ranks(tmp_path, *line, name="once more")[0] == [0, 0]  # there is nothing left to do


def test_a_number_that_is_none_on_one_rank_stops_both(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    codes, (first, second) = by_ranks(tmp_path, tmp_path / "faulty.py", "--out", tmp_path / "run")
    assert codes == [3, 3]
    assert "round 5: the loss 'payoff' of 'point' is not finite" in first
    assert second == ""


def test_a_rank_that_fails_says_why_and_no_other_waits_for_it(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    codes, (first, second) = by_ranks(tmp_path, tmp_path / "faulty.py", "--fails", "--out", tmp_path / "run")
    assert codes == [1, 1]
    again = f"--resume {tmp_path / 'run'}"
    assert "another rank is gone" in first
    assert again in first
    assert "Traceback" not in first
    assert "rank 1: LookupError: nobody expected this" in second
    assert again in second


def test_one_process_goes_on_where_two_ranks_were_and_says_so(tmp_path, capsys):
    folder = tmp_path / "run"
    processes = started(run, (tmp_path / "log", *GAME, "--out", folder), tmp_path)
    wait_for_rounds(processes[0], folder, 1)
    processes[0].terminate()
    assert ended(processes) == [130, 130]
    assert main(["adasg", "--resume", str(folder)]) == 0
    assert "played by 2 ranks so far, and by 1 from here on" in capsys.readouterr().err


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path):
    codes, (first, _) = by_ranks(tmp_path, *GAME, "--batch-size", "15", "--out", tmp_path / "run")
    assert codes == [2, 2]
    assert "a batch of 15 for 2 ranks: expected a multiple of 2" in first
    assert not (tmp_path / "run").exists()


def test_auto_goes_on_with_the_run_of_that_folder_and_no_other(tmp_path, capsys):
    line = ["matrix_game", "--rounds", "20", "--out", str(tmp_path / "run"), "--resume", "auto"]
    assert main(line) == 0
    assert main(line) == 0
    assert "that run is finished" in capsys.readouterr().err
    assert main([*line, "--seed", "1"]) == 2
    assert main(["saddle", *line[1:]]) == 2
    (tmp_path / "run" / "summary.json").unlink()
    assert main([*line, "--seed", "1"]) == 2
    assert "--seed 1 differs from the run's 0" in capsys.readouterr().err
    assert main(["matrix_game", "--resume", "auto"]) == 2
    assert "--resume auto: expected --out too" in capsys.readouterr().err


def test_what_the_first_rank_alone_can_see_is_said_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    codes, (first, second) = by_ranks(tmp_path, *GAME, "--out", tmp_path / "run")
    assert codes == [2, 2]
    assert first.count("the folder holds files already") == 1
    assert second == ""


def play_all(folder, lines):
    """Each line's exit code, in one pair of processes."""
    return [main([*line, "--out", str(folder / str(place)), "--device", "cpu"]) for place, line in enumerate(lines)]


FEW = ("--rounds", "4", "--warmup", "1", "--calibration", "2", "--batch-size", "8")
MADE = ("--pool", "20", "--synthesis-rounds", "3", "--synthesis-images", "8", "--batch-size", "8", "--calibration", "2")
RECIPES = {
    **dict.fromkeys(("gdfq", "qimera", "ait", "adadfq", "akt", "zaq"), FEW),
    **dict.fromkeys(("intraq", "hast", "synq"), (*MADE, "--rounds", "4")),
    **dict.fromkeys(("zeroq", "psaq"), MADE),
    **dict.fromkeys(("genie", "reconstruction"), (*MADE, "--block-steps", "2")),
    "adasg": (*FEW, "--block-steps", "2", "--pool", "20", "--dynamics", "balanced"),
    "dfq": (),
    "matrix_game": ("--rounds", "20"),
    "saddle": ("--rounds", "20"),
    "gan_ring": ("--rounds", "4"),
    "robust_digits": ("--rounds", "4"),
    "digits_teacher": ("--rounds", "4"),
}


@pytest.mark.slow
def test_every_recipe_is_played_by_ranks_to_one_end(tmp_path):
    assert set(RECIPES) == set(installed())
    lines = [(name, *options) for name, options in RECIPES.items()]
    found = played(play_all, tmp_path, lines, folder=tmp_path, deadline=300)
    assert found == [[0] * len(lines)] * 2
    for place, name in enumerate(RECIPES):
        summary = json.loads((tmp_path / str(place) / "summary.json").read_text())
        assert (name, summary["ranks"], summary["ranks_differ_by"]) == (name, 2, 0.0)


@pytest.mark.slow
def test_torchrun_starts_ranks_again_after_one_was_killed(whole, tmp_path):
    folder = tmp_path / "run"
    line = [*GAME, "--checkpoint-every", "0", "--out", str(folder), "--resume", "auto"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    started = subprocess.Popen([*torchrun, "-m", "zerosum.run", *line], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert started.wait(180) == 0
    assert same_network(folder, whole[0])
    config = json.loads((folder / "config.json").read_text())
    assert len(config["resumed"]) == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_ranks_on_cuda_have_a_device_each_and_stay_alike(tmp_path):
    codes, printed = by_ranks(tmp_path, *GAME, "--device", "cuda", "--out", tmp_path / "run")
    assert codes == [0, 0], printed
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["ranks_differ_by"] == 0
