"""What other methods take beside AdaSG: a page of their own, and no trick."""

import json
from pathlib import Path

import pytest

import zerosum
from tests.processes import lines
from zerosum.runs.run import main

EXTENSIONS = Path(__file__).parent / "extensions"
FEW = ["--block-steps", 40, "--pool", 128, "--batch-size", 32]


def played(name, folder, *options):
    assert main([str(EXTENSIONS / f"{name}.py"), "--device", "cpu", *map(str, options), "--out", str(folder)]) == 0
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "most"), [("pixels", 50), ("two_phases", 40)])
def test_a_method_is_a_page(name, most):
    assert len((EXTENSIONS / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= most


def test_a_pool_of_pixels_as_a_player(tmp_path):
    summary = played("pixels", tmp_path / "run", "--rounds", 60, "--warmup", 40, "--gap-every", 10, *FEW)
    assert summary["after_top1"] >= 75
    assert summary["balance_gap"] is not None
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 3


def test_two_phases_and_what_was_before_the_second(tmp_path):
    summary = played(
        "two_phases", tmp_path / "run", "--rounds", 60, "--synthesis", 60, "--block-steps", 0, "--calibration", 4
    )
    images, quantization = (lines(tmp_path / "run" / stage) for stage in ("images", "quantization"))
    assert not any("measured" in line for line in images)
    measured = [line["measured"]["top1"] for line in quantization if "measured" in line]
    assert (summary["before_top1"], summary["after_top1"]) == (measured[0], measured[-1])
    assert quantization[0]["round"] == 0
    assert summary["matches"]["images"]["rounds"] == 60
    # A copy that is rounded on these images and has not moved: the same run, with no rounds of the copy.
    rounded = played(
        "two_phases", tmp_path / "rounded", "--rounds", 0, "--synthesis", 60, "--block-steps", 0, "--calibration", 4
    )
    assert summary["before_top1"] == rounded["after_top1"]
    assert summary["after_top1"] > summary["before_top1"]
    assert zerosum.load(tmp_path / "run") is not None
