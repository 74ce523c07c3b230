"""docs/run_onnx.py gives the accuracy that was reported, where torch cannot be imported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from zerosum import export
from zerosum.players import Architecture, Scheme, input_space, load_backbone
from zerosum.players.data import Digits, evaluation_transform
from zerosum.players.export.onnx_file import describe_input
from zerosum.players.storage import Description
from zerosum.runs.run import main as play

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "run_onnx.py"


def without_torch(folder, *arguments):
    """What the script prints in a Python that has no torch, and nothing of this project."""
    for name in ("torch", "zerosum", "players", "timm"):
        (folder / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder).stdout


@pytest.mark.parametrize(
    "scheme", [[], ["--weight-grid", "symmetric", "--sums", "quantized"]], ids=["float32", "integer"]
)
def test_it_reproduces_the_accuracy(tmp_path, scheme):
    digits = Digits("held-out", lambda picture: picture)
    for index, (picture, label) in enumerate(digits):
        if label == 4:  # others keep their indices
            continue
        path = tmp_path / "images" / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    run = tmp_path / "run"
    few = ["--rounds", "2", "--warmup", "1", "--calibration", "1", "--block-steps", "0"]
    assert play(["adasg", *few, "--bits", "w7a8", "--out", str(run), *scheme]) == 0
    assert export.main([str(run), "--check", str(tmp_path / "images")]) == 0
    reported = json.loads((run / "export.json").read_text())["exported_top1"]
    out = without_torch(tmp_path, run / "quantized.onnx", tmp_path / "images")
    assert out == f"top-1 {reported:.2f} % of 486 images\n"


def test_photographs_are_scaled_and_cut_as_when_they_were_measured(tmp_path):
    """Of another shape than the network's input: the same numbers as timm's transforms give."""
    spec = importlib.util.spec_from_file_location("run_onnx", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    network = load_backbone("tf_efficientnet_lite0", "random")
    architecture = Architecture("timm", "tf_efficientnet_lite0", {"num_classes": 1000})
    about = describe_input(network, Description(architecture, {}, Scheme(), input_space(network)))
    pixels = np.kron(load_digits().images[:3].astype(np.uint8).transpose(1, 2, 0) * 15, np.ones((41, 57, 1), np.uint8))
    for picture in (
        Image.fromarray(pixels),
        Image.fromarray(pixels.transpose(1, 0, 2)),
        Image.fromarray(pixels[:, :, 0]),
        Image.fromarray(pixels[:224, :224]),
    ):
        expected = evaluation_transform(network)(picture.convert("RGB"))[None]
        torch.testing.assert_close(torch.from_numpy(script.prepare(picture, about)), expected, rtol=0, atol=1e-5)
    assert about["classes"].split()[:2] == ["n01440764", "n01443537"]
