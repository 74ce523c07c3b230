"""Runs are, byte for byte, those of the tree before its walls were moved."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from zerosum.runs.run import main

BEFORE = "38b77393113793ff9f33f7b3865aea5b2bd9f5c9"
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ["adasg", "--bits", "w3a3", "--rounds", "50", "--device", "cpu", "--seed", "3"]
NOW = ["--block-steps", "0", "--weight-range", "minmax", "--activation-range", "ema"]  # what was not said then


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The tree as it was then; skips where its commit is not at hand."""
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"no commit {BEFORE} here")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def compare(before, tmp_path, *options):
    then, now = tmp_path / "then", tmp_path / "now"
    old = [sys.executable, "-m", "zerosum.run", *OPTIONS, *options, "--out", str(then)]
    subprocess.run(old, cwd=before, env=os.environ | {"PYTHONPATH": str(before)}, check=True, capture_output=True)
    assert main([*OPTIONS, *NOW, *options, "--out", str(now)]) == 0
    for name in ("metrics.jsonl", "quantized.safetensors", "layers.csv"):
        assert (then / name).read_bytes() == (now / name).read_bytes(), name


def test_the_default_network(before, tmp_path):
    compare(before, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dynamics", ["alternating", "extragradient", "optimistic"])
def test_other_rules_of_play(dynamics, before, tmp_path):
    compare(before, tmp_path, "--dynamics", dynamics)


def test_cifar_resnet20(before, tmp_path, shared):
    weights = shared("weights/cifar10_resnet20-12fca82f.th")
    compare(before, tmp_path, "--backbone", "cifar_resnet20", "--weights", str(weights))
