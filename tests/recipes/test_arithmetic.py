"""Which numbers networks compute in is decided once, where they gain by it, and stays so."""

import json

import pytest
import torch
from torch import nn

from zerosum import quantize
from zerosum.players import InputSpace
from zerosum.recipes.common import arithmetic
from zerosum.runs.run import main

FEW = ["--rounds", "4", "--warmup", "1", "--calibration", "1", "--block-steps", "1", "--pool", "8"]
SPACE = InputSpace(3, (32, 32), (0.5,) * 3, (0.5,) * 3)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3), nn.Flatten(), nn.Linear(25088, 10)
    )


@pytest.fixture
def with_instructions(monkeypatch):
    monkeypatch.setattr(arithmetic, "has_bfloat16", lambda device: True)
    monkeypatch.setattr("zerosum.recipes.common.options.has_bfloat16", lambda device: True)


def precision_of(run):
    return json.loads((run / "config.json").read_text(encoding="utf-8"))["options"]["precision"]


@pytest.mark.parametrize(("times", "expected"), [(1.7, "bf16"), (1.1, "fp32"), (0.1, "fp32")])
def test_it_is_said_kept_and_gone_on_with(times, expected, tmp_path, capsys, monkeypatch, with_instructions):
    monkeypatch.setattr(arithmetic, "faster_in_bfloat16", lambda *_: times)
    run = tmp_path / "run"
    assert main(["adasg", *FEW, "--checkpoint-every", "0", "--out", str(run)]) == 0
    assert f"precision: {expected}, for bf16 is {times} times as fast" in capsys.readouterr().out
    assert precision_of(run) == expected
    (run / "summary.json").unlink()  # as if it had been killed at its end
    monkeypatch.setattr(arithmetic, "faster_in_bfloat16", lambda *_: pytest.fail("tried again"))
    assert main(["adasg", "--resume", str(run)]) == 0
    assert precision_of(run) == expected


def test_what_is_asked_for_is_not_tried(tmp_path, monkeypatch, with_instructions):
    monkeypatch.setattr(arithmetic, "faster_in_bfloat16", lambda *_: pytest.fail("tried"))
    for precision in ("fp32", "bf16"):
        assert main(["adasg", *FEW, "--precision", precision, "--out", str(tmp_path / precision)]) == 0
        assert precision_of(tmp_path / precision) == precision


def test_a_network_that_is_handed_in_is_tried_itself(tmp_path, monkeypatch, with_instructions):
    tried = []
    monkeypatch.setattr(arithmetic, "faster_in_bfloat16", lambda network, *_: tried.append(network) or 2.0)
    given = network()
    few = {"rounds": 2, "warmup": 1, "calibration": 1, "block_steps": 1, "pool": 8}
    run = tmp_path / "run"
    quantize(given, "w4a4", input_size=(3, 32, 32), mean=0.5, std=0.5, out=run, progress=False, **few)
    assert [type(module) for module in tried[0].modules()][1:] == [type(module) for module in given.modules()][1:]
    assert precision_of(run) == "bf16"


def test_without_instructions_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(arithmetic, "has_bfloat16", lambda device: False)
    assert arithmetic.faster_in_bfloat16(network(), SPACE, 16) is None


def test_a_trial_leaves_no_trace(with_instructions):
    tried = network().eval()
    before, state = {name: value.clone() for name, value in tried.state_dict().items()}, torch.get_rng_state()
    assert arithmetic.faster_in_bfloat16(tried, SPACE, 16) > 0
    assert all(torch.equal(value, before[name]) for name, value in tried.state_dict().items())
    assert all(parameter.grad is None for parameter in tried.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_small_networks_are_left_in_float32(with_instructions):
    """Whatever the clock says, so that their runs are the same on every machine's CPU."""
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 10))
    assert arithmetic.faster_in_bfloat16(small, SPACE, 16) is None
