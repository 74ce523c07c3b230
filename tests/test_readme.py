"""The README's examples run, and its commands are those that CI runs."""

import re
import subprocess
import sys
from pathlib import Path

from torch import nn

from zerosum import export
from zerosum.runs.run import main as play

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_it_opens_with_the_two_commands():
    assert blocks("sh")[:2] == [
        "pip install -e '.[quantization]' && python -m zerosum.run recipes/adasg.py\n",
        "pip install -e '.[test]' && pytest\n",
    ]


def test_a_network_is_quantized_from_python_as_it_says(tmp_path, monkeypatch):
    example = blocks("python")[0]
    short = "rounds=2, warmup=1, block_steps=1, pool=8, input_size="
    assert example.count("input_size=") == 1
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 10))
    exec(example.replace("input_size=", short), {"network": network})
    assert {"quantized", "network.onnx"} == {path.name for path in tmp_path.iterdir()}


def test_the_exported_file_runs_as_it_says(tmp_path):
    folder = tmp_path / "run"
    few = ["--rounds", "1", "--warmup", "1", "--calibration", "1", "--block-steps", "0"]
    assert play(["adasg", *few, "--out", str(folder)]) == 0
    assert export.main([str(folder)]) == 0
    (example,) = [block for block in blocks("python") if "onnxruntime" in block]
    assert "runs/adasg-20261124-120000" in example
    space = {}
    exec(example.replace("runs/adasg-20261124-120000", str(folder)), space)
    assert space["logits"].shape == (1, 10)


def test_the_game_of_your_own_runs_as_it_stands():
    (example,) = [block for block in blocks("python") if "Match(" in block]
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    rounds, *reason, x, y = result.stdout.split()
    assert int(rounds) < 1000
    assert reason[0] == "stationary:"
    assert abs(float(x)) < 1e-3
    assert abs(float(y)) < 1e-3
