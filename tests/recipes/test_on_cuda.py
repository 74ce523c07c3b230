"""All recipes of data-free quantization on a CUDA device, where there is one."""

import json

import pytest
import torch

import zerosum
from zerosum.runs.run import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GAME = ["--rounds", "4", "--warmup", "1", "--calibration", "2", "--batch-size", "8"]
FIRST = ["--pool", "20", "--synthesis-rounds", "3", "--synthesis-images", "10"]
STEPS = ["--block-steps", "2"]
OPTIONS = {
    "adasg": [*GAME, *STEPS, "--pool", "20"],
    "adadfq": GAME,
    "ait": GAME,
    "akt": GAME,
    "gdfq": GAME,
    "qimera": GAME,
    "zaq": GAME,
    "dfq": [],
    "genie": [*FIRST, *STEPS],
    "reconstruction": ["--images", "generator", *FIRST, *STEPS],
    "zeroq": FIRST,
    "psaq": FIRST,
    "intraq": [*FIRST, "--rounds", "3"],
    "hast": [*FIRST, "--rounds", "3"],
    "synq": [*FIRST, "--rounds", "3"],
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_plays_to_its_end(name, precision, tmp_path):
    run = tmp_path / "run"
    assert main([name, *OPTIONS[name], "--precision", precision, "--device", "cuda", "--out", str(run)]) == 0
    assert "after_top1" in json.loads((run / "summary.json").read_text(encoding="utf-8"))
    network = zerosum.load(run).cuda()
    assert network(torch.zeros(2, 1, 8, 8, device="cuda")).isfinite().all()
