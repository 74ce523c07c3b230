"""DFQ: to its end without images, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import zerosum
from zerosum.recipes import dfq
from zerosum.runs import report
from zerosum.runs.run import main

RECIPE = str(Path(dfq.__file__))


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ([], 1),
        (["--no-equalize", "--no-correct"], 0),
        (["--weight-granularity", "per-tensor", "--sums", "quantized"], 1),
    ],
)
def test_it_runs_to_its_end_and_leaves_the_same_kind_of_folder(options, rounds, tmp_path):
    arguments = [RECIPE, "--bits", "w4a4", "--device", "cpu", *options, "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rounds"] == rounds
    assert {"before_top1", "after_top1", "quantized_bytes"} <= summary.keys()
    assert (summary["before_top1"] == summary["after_top1"]) or rounds
    with (tmp_path / "run" / "layers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["bits"]]
    assert len(rows) == 8
    assert all(float(row["weight_sqnr"]) > 5 for row in rows)  # P and Q are scaled alike
    assert zerosum.load(tmp_path / "run")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_its_folder_becomes_a_page(tmp_path):
    assert main([RECIPE, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert report.main([str(tmp_path / "run")]) == 0


def test_p_is_equalized_too_and_answers_as_it_did():
    config = dfq.Config(device="cpu", bits="w32a32", correct=False)
    network = zerosum.players.load_backbone("digits_resnet8").eval()
    (match,) = [dfq.recipe(config).begin("", {}, 0).match]
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(match.game.players[0].module(images), network(images), rtol=1e-4, atol=1e-4)


def test_a_network_without_batchnorm_is_rounded_on_noise():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    options = {"recipe": RECIPE, "device": "cpu", "progress": False, "calibration": 1}
    found = zerosum.quantize(network, "w8a8", input_size=(1, 8, 8), mean=0.5, std=0.5, **options)
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.network(images), network(images), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "option",
    ["--rounds", "--warmup", "--block-steps", "--renewals", "--pool", "--leaves", "--dropped", "--quantized-lr"],
)
def test_options_of_games_and_learning_are_refused(option, capsys, tmp_path):
    assert main([RECIPE, option, "1", "--out", str(tmp_path / "run")]) == 2
    assert f"{option} 1" in capsys.readouterr().err


class Branching(nn.Module):
    """What it does depends on the images, which torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    def forward(self, x):
        return self.layers(x) if x.sum() >= 0 else self.layers(-x)


def test_a_network_that_cannot_be_traced_is_quantized_on_noise_and_that_is_said():
    space = {"input_size": (1, 8, 8), "mean": 0.5, "std": 0.5}
    with pytest.warns(UserWarning, match="torch.fx cannot trace it, so that nothing is equalized"):
        made = zerosum.quantize(Branching(), "w8a8", **space, recipe="dfq", device="cpu", progress=False)
    assert made.network(torch.zeros(1, 1, 8, 8)).shape == (1, 3)
