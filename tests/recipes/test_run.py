"""The command line as a user meets it, on the embedded network."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.processes import lines
from zerosum import DYNAMICS
from zerosum.players import accuracy, load_data, load_quantized, predict
from zerosum.recipes import adasg
from zerosum.runs.run import main

SHORT = ["--rounds", "30", "--warmup", "10", "--gap-every", "5", "--calibration", "2", "--measure-every", "10"]
SHORT += ["--block-steps", "0", "--batch-size", "16"]
FEW = ["--rounds", "2", "--warmup", "1", "--calibration", "1", "--block-steps", "0", "--batch-size", "4"]
FILES = {
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "quantized.safetensors",
    "layers.csv",
    "classes.csv",
    "pictures",
    "game.png",
    "checkpoints",
    ".lock",
}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["adasg", *SHORT, "--out", str(folder)]) == 0
    return folder


def test_a_run_leaves_what_the_readme_says(played):
    assert {path.name for path in played.iterdir()} == FILES
    summary = json.loads((played / "summary.json").read_text())
    assert set(summary) == {
        *("teacher_top1", "before_top1", "after_top1", "agreement", "images", "intervals"),
        *("teacher_top5", "before_top5", "after_top5", "float_bytes", "quantized_bytes"),
        *("rounds", "seconds", "rewinds", "balance_gap", "stationary", "reason", "result", "plan", "divergence"),
    }
    assert summary["rounds"] == 30
    assert summary["teacher_top1"] > 98
    assert 0 < summary["before_top1"] < summary["teacher_top1"]
    assert isinstance(summary["balance_gap"], float)
    assert summary["stationary"] is False
    config = json.loads((played / "config.json").read_text())
    assert config["options"]["backbone"] == "digits_resnet8"
    assert config["options"]["rounds"] == 30
    assert config["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"recipe", "device", "git_commit", "command", "threads"} <= set(config)


def test_the_journal_has_every_round_once_and_what_was_measured(played):
    journal = lines(played)
    assert [line["round"] for line in journal] == list(range(31))
    assert [line["round"] for line in journal if "measured" in line] == [0, 10, 20, 30]
    assert [line["round"] for line in journal if "balance_gap" in line] == [11, 16, 21, 26]
    assert set(journal[5]["losses"]) == {"generator"}  # warm-up
    assert set(journal[30]["losses"]) == {"generator", "quantized network"}
    assert set(journal[30]["losses"]["generator"]) == {"surrogate", "disagreement", "agreement", "bn_alignment"}
    line = journal[11]
    assert line["balance_gap"] == pytest.approx(line["gain"] - line["drop"], abs=1e-6)


def test_pictures_are_pictures(played):
    names = [f"pictures/round-{round:06d}.png" for round in (0, 15, 30)]
    assert sorted(path.name for path in (played / "pictures").iterdir()) == [Path(name).name for name in names]
    for name in (*names, "game.png"):
        with Image.open(played / name) as image:
            assert image.width > 300
            assert len(image.convert("RGB").getcolors(2**24)) > 20


def test_the_quantized_network_comes_back_as_it_was_measured(played):
    network = load_quantized(played / "quantized.safetensors")
    found = accuracy(*predict(network, load_data("digits", network), torch.device("cpu")))["top1"]
    assert found == json.loads((played / "summary.json").read_text())["after_top1"]
    assert len(network.conv1.weight[0].unique()) <= 4  # w2


def test_a_seed_fixes_a_run_and_measuring_does_not_disturb_it(played, tmp_path):
    assert main([adasg.__file__, *SHORT, "--measure-every", "7", "--out", str(tmp_path / "again")]) == 0
    assert main(["adasg", *SHORT, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    a, b, other = (
        torch.tensor([line["payoff"] for line in lines(f)[1:]])
        for f in (played, tmp_path / "again", tmp_path / "other")
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    assert (played / "quantized.safetensors").read_bytes() == (tmp_path / "again/quantized.safetensors").read_bytes()


def test_without_data_the_run_says_that_accuracy_was_not_measured(tmp_path, capsys):
    arguments = ["adasg", "--backbone", "cifar_resnet20", "--weights", "random"]
    assert main([*arguments, *FEW, "--out", str(tmp_path / "run")]) == 0
    assert "accuracy was not measured" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/summary.json").read_text())["after_top1"] is None


def test_no_rounds_leave_a_network_that_was_only_rounded(tmp_path):
    assert main(["adasg", *FEW, "--rounds", "0", "--bits", "w8a8", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["before_top1"] == summary["after_top1"] > summary["teacher_top1"] - 1
    assert summary["rounds"] == 0


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_adasg_is_played_by_any_dynamics(dynamics):
    few = {"rounds": 20, "warmup": 5, "calibration": 4, "block_steps": 0, "measure_every": 5}
    config = adasg.Config(dynamics=dynamics, device="cpu", **few)
    match = adasg.recipe(config).begin("", {}, config.seed).match
    match.play()
    measured = {round: figures["top1"] for round, figures in match.measured}
    assert measured[20] > measured[5]


def test_the_balance_gap_gives_rounds_away(tmp_path):
    """At a tolerance of 0 somebody lags after each whole stretch: the first ends with round 11, the next with 21."""
    options = ["--rounds", "30", "--warmup", "3", "--gap-every", "5", "--gap-tolerance", "0", "--calibration", "1"]
    options += ["--block-steps", "0", "--dynamics", "balanced", "--batch-size", "48"]
    assert main(["adasg", *options, "--out", str(tmp_path / "run")]) == 0
    journal = lines(tmp_path / "run")
    alone = {line["round"] for line in journal[4:] if len(line["losses"]) == 1}
    assert alone == {*range(12, 16), *range(22, 26)}
    for round in alone:
        read = journal[11 if round < 20 else 21]
        mover = "quantized network" if read["balance_gap"] > 0 else "generator"
        assert list(journal[round]["losses"]) == list(journal[round]["step_sizes"]) == [mover]
    gap = adasg.recipe(adasg.Config(batch_size=48, block_steps=0)).begin("", {}, 0).match.criterion
    assert [len(labels) for _, labels in gap.probes] == [48] * 3  # 128 images, in batches


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_networks_without_batchnorm_play_for_patch_similarity_entropy(name, tmp_path):
    options = ["--backbone", name, "--weights", "random", "--input-size", "3", "64", "64", "--bits", "w4a8", *FEW]
    assert main(["adasg", *options, "--out", str(tmp_path / "run")]) == 0
    losses = [line["losses"]["generator"] for line in lines(tmp_path / "run")[1:]]
    assert all(set(loss) == {"surrogate", "disagreement", "agreement", "patch_entropy", "class"} for loss in losses)
    assert main(["adasg", *options, "--rounds", "1", "--patch-entropy", "0", "--out", str(tmp_path / "again")]) == 0
    assert lines(tmp_path / "again")[1]["losses"]["generator"]["patch_entropy"] == 0


def test_layers_have_the_bits_and_the_scheme_asked_for(tmp_path):
    bits = ["--bits", "w3a32", "--first-last-bits", "w8a8", "--layer-bits", "layer2.*=w4a6", "--layer-bits=conv1=w5a5"]
    scheme = ["--weight-range", "lsq", "--weight-grid", "symmetric", "--activation-range", "mse"]
    assert main(["adasg", *SHORT, *bits, *scheme, "--out", str(tmp_path / "run")]) == 0
    rows = list(csv.DictReader((tmp_path / "run/layers.csv").open()))
    assert {row["layer"]: row["bits"] for row in rows if row["bits"]} == {
        "conv1": "w5a5",
        "layer1.0.conv1": "w3a32",
        "layer1.0.conv2": "w3a32",
        "layer2.0.conv1": "w4a6",
        "layer2.0.conv2": "w4a6",
        "layer3.0.conv1": "w3a32",
        "layer3.0.conv2": "w3a32",
        "linear": "w8a8",
    }
    scheme = "weights symmetric per-channel lsq, activations asymmetric per-tensor mse"
    assert {row["scheme"] for row in rows if row["bits"]} == {scheme}
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert sum(int(row["size"]) for row in rows) == summary["quantized_bytes"] < 0.25 * summary["float_bytes"]
    network = load_quantized(tmp_path / "run/quantized.safetensors")
    assert len(network.layer1[0].conv1.weight[0].unique()) <= 8
    found = accuracy(*predict(network, load_data("digits", network), torch.device("cpu")))["top1"]
    assert found == summary["after_top1"]


def test_class_conditional_batchnorm_plays(tmp_path):
    assert main(["adasg", *FEW, "--conditioning", "batchnorm", "--out", str(tmp_path / "run")]) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_cuda(tmp_path):
    assert main(["adasg", *SHORT, "--device", "cuda", "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["teacher_top1"] > 98


def test_help_names_every_option_with_meaning_and_default(capsys):
    with pytest.raises(SystemExit) as ended:
        main([adasg.__file__, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("backbone", "weights", "data", "bits", "rounds", "batch-size", "seed", "device", "out", "resume"):
        assert f"--{option}" in text
    assert "(default: w2a3)" in text
    assert "Images a round" in text


def test_a_folder_with_another_run_is_left_alone(played, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in played.iterdir()}
    assert main(["adasg", *SHORT, "--out", str(played)]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in played.iterdir()} == before


def test_what_cannot_be_resumed_is_named(played, capsys, tmp_path):
    assert main(["adasg", "--resume", str(tmp_path / "none")]) == 2
    assert "no run there" in capsys.readouterr().err
    folder = tmp_path / "run"
    shutil.copytree(played, folder)
    (folder / "summary.json").unlink()
    assert main(["adasg", "--resume", str(folder), "--bits", "w8a8"]) == 2
    assert "--bits w8a8 differs from the run's w2a3" in capsys.readouterr().err
