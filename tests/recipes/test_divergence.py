"""Runs that diverge stop within the round, or go back and find a step, on the embedded network."""

import json
import time

import pytest

from tests.processes import finish, lines, start
from zerosum.runs import checkpoints
from zerosum.runs.run import main

# A million times the default.
DIVERGING = ["adasg", "--rounds", "30", "--warmup", "4", "--calibration", "1", "--quantized-lr", "300"]
DIVERGING += ["--block-steps", "0", "--batch-size", "16", "--weight-range", "minmax", "--activation-range", "ema"]


def test_a_run_that_diverges_stops_within_the_round_and_says_who(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*DIVERGING, "--out", str(folder)]) == 3
    error = capsys.readouterr().err
    assert "'quantized network'" in error
    assert f"--resume {folder} --step-scale 0.5" in error
    round = int(error.split("round ")[1].split(":")[0])
    assert [line["round"] for line in lines(folder)] == list(range(round))
    assert (folder / "game.png").exists()
    assert not (folder / "summary.json").exists()
    state = checkpoints.load(checkpoints.saved(folder)[-1])
    assert all(tensor.isfinite().all() for tensor in state["players"]["quantized network"]["module"].values())
    assert main(["adasg", "--resume", str(folder), "--step-scale", "1e-6"]) == 0
    sizes = [line["step_sizes"].get("quantized network", 0) for line in lines(folder)[1:]]
    assert max(sizes) == pytest.approx(3e-4)


def test_with_rewind_it_finds_a_step_and_finishes(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*DIVERGING, "--on-divergence", "rewind", "--max-rewinds", "25", "--out", str(folder)]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert 1 <= summary["rewinds"] <= 25
    assert f"rewind {summary['rewinds']} of 25" in " ".join(capsys.readouterr().out.split())
    assert [line["round"] for line in lines(folder)] == list(range(31))
    assert all(line["payoff"] is not None for line in lines(folder)[1:])


def test_it_goes_back_no_more_often_than_it_may(tmp_path, capsys):
    options = ["--on-divergence", "rewind", "--max-rewinds", "2", "--out", str(tmp_path / "run")]
    assert main([*DIVERGING, *options]) == 3
    captured = capsys.readouterr()
    assert "rewind 2 of 2" in captured.out
    assert "--step-scale 0.125" in captured.err


def test_a_rewound_run_that_is_killed_goes_on_as_it_was(tmp_path):
    options = [*DIVERGING, "--quantized-lr", "0.2", "--on-divergence", "rewind", "--max-rewinds", "25"]
    whole, folder, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"
    assert main([*options, "--out", str(whole)]) == 0
    process = start(log, *options, "--out", folder)
    while "rewind 2 of" not in (log.read_text() if log.exists() else ""):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    finish(process, log)
    assert main(["adasg", "--resume", str(folder)]) == 0
    assert lines(folder) == lines(whole)
