"""Runs in which blocks answer: when they do, whatever is asked for, and what is kept and reported of them."""

import csv
import json

import pytest
import torch

import zerosum
from tests.processes import finish, lines, start, wait_for_rounds
from zerosum import Match
from zerosum.players import accuracy, load_data, predict
from zerosum.recipes.adasg import Config, make_game
from zerosum.recipes.common.data_free import scene_of
from zerosum.runs.run import main


def top1_of_classes(run):
    with (run / "classes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return sum(int(row["images"]) * float(row["quantized"]) for row in rows) / sum(int(row["images"]) for row in rows)


def test_blocks_answer_again_after_equal_shares_of_the_game_on_images_made_by_then():
    scene = scene_of(Config(rounds=20, warmup=8, renewals=2, block_steps=1, pool=8, batch_size=4))
    assert scene.answers == (range(8, 13), range(17, 22), range(26, 31))
    assert scene.rounds == 20 + 15
    pools, pool = [], scene.reconstruction.images
    scene.reconstruction.images = lambda: pools.append(pool()) or pools[-1]
    Match(make_game(scene, scene.config), scene.dynamics(), scene.rounds).play()
    assert len(scene.reconstruction.answers) == 15
    assert len(pools) == 3
    assert not {image.numpy().tobytes() for image in pools[0]} & {image.numpy().tobytes() for image in pools[1]}


PLAYED = [
    ["--backbone", "digits_vit", "--data", "digits", "--bits", "w4a4"],
    ["--precision", "bf16", "--activation-range", "lsq"],
    ["--sums", "quantized", "--weight-grid", "symmetric", "--bits", "w8a8"],
    ["--weight-range", "adaround", "--first-last-bits", "w32a8"],
    ["--weight-range", "lsq", "--activation-range", "lsq", "--dynamics", "extragradient"],
    ["--leaves", "0", "--bits", "w2a32"],
    ["--leaves", "1", "--bits", "w32a3"],
    ["--warmup", "0", "--dynamics", "alternating"],
    ["--warmup", "3", "--pool", "1"],
]


@pytest.mark.parametrize("options", PLAYED, ids=" ".join)
def test_blocks_answer_whatever_is_asked_for(options, tmp_path):
    quick = ["--rounds", "3", "--warmup", "1", "--block-steps", "2", "--pool", "12", "--batch-size", "8"]
    run = tmp_path / "run"
    assert main(["adasg", *quick, *options, "--device", "cpu", "--out", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    blocks = (run / "blocks.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert summary["rounds"] == 3 + len(blocks)
    assert len(blocks) == 5
    with (run / "layers.csv").open(newline="", encoding="utf-8") as file:
        named = {row["block"] for row in csv.DictReader(file) if row["shape"]}
    assert named == {block.split(",")[0] for block in blocks}
    # What is reported is of what is kept: the network in the folder has that accuracy, and those classes.
    network = zerosum.load(run)
    top1 = accuracy(*predict(network, load_data("digits", network), torch.device("cpu")))["top1"]
    assert top1 == pytest.approx(summary["after_top1"], abs=0.4)  # ties between levels may fall otherwise
    assert top1_of_classes(run) == pytest.approx(summary["after_top1"])


def test_the_state_that_is_kept_is_the_one_that_is_reported(tmp_path):
    """A step that spoils the game after the reconstruction: what is kept is from before."""
    options = ["--rounds", "12", "--warmup", "2", "--block-steps", "40", "--pool", "64", "--quantized-lr", "0.03"]
    options += ["--measure-every", "3", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["adasg", *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    measured = [line["measured"] for line in lines(tmp_path / "run") if "divergence" in line.get("measured", {})]
    least = min(measured, key=lambda figures: figures["divergence"])
    assert summary["after_top1"] == pytest.approx(least["top1"])
    assert least is not measured[-1]
    assert top1_of_classes(tmp_path / "run") == pytest.approx(summary["after_top1"])


def test_a_run_that_is_killed_between_two_blocks_and_resumed_has_the_same_weights(tmp_path):
    arguments = ["adasg", "--rounds", "8", "--warmup", "4", "--block-steps", "8", "--pool", "24", "--calibration", "2"]
    arguments += ["--batch-size", "8", "--checkpoint-every", "0", "--device", "cpu", "--renewals", "1"]
    log, whole, broken = tmp_path / "log", tmp_path / "whole", tmp_path / "broken"
    assert finish(start(log, *arguments, "--out", whole), log)[0] == 0
    killed = start(log, *arguments, "--out", broken)
    wait_for_rounds(killed, broken, 14)  # a line before the first, four of the generator, five blocks, two, two blocks
    killed.kill()
    killed.join()
    assert finish(start(log, "adasg", "--resume", broken), log)[0] == 0
    for name in ("quantized.safetensors", "blocks.csv", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert len((whole / "blocks.csv").read_text(encoding="utf-8").splitlines()) == 11
