"""Runs of networks by every kind of name, and what is made of their folders."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

import zerosum
from zerosum import export, report
from zerosum.players import InputSpace, input_space, label_names, load_backbone
from zerosum.runs.run import main

SHORT = ["--rounds", "2", "--warmup", "1", "--calibration", "1", "--block-steps", "0", "--batch-size", "2"]
FACTORY = """
from torch import nn


def make(width=4):
    return nn.Sequential(
        *(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)),
    )
"""
OWN = ["--backbone", "my_net:make", "--backbone-args", "width=6", "--input-size", "2", "16", "24"]
OWN += ["--mean", "0.5", "--std", "0.2", "0.3"]


def played(folder, *arguments):
    assert main(["adasg", *arguments, *SHORT, "--device", "cpu", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def my_net(tmp_path, monkeypatch):
    """The user's module, which can be imported until it is forgotten."""
    (tmp_path / "my_net.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_net", None)


def test_a_network_of_a_factory(tmp_path, my_net, capsys):
    run = played(tmp_path / "run", *OWN)
    sys.modules.pop("my_net")
    with pytest.raises(ValueError, match=r"my_net:make, which is code and not run unasked; .*into=network.*trust=True"):
        zerosum.load(run)
    assert export.main([str(run)]) == 2
    assert "(export: --trust)" in " ".join(capsys.readouterr().err.split())
    assert "my_net" not in sys.modules

    network = zerosum.load(run, trust=True)
    assert input_space(network) == InputSpace(2, (16, 24), (0.5, 0.5), (0.2, 0.3))
    images = torch.randn(2, 2, 16, 24)
    other = sys.modules["my_net"].make(6)
    assert torch.equal(zerosum.load(run, into=other)(images), network(images))
    assert export.main([str(run), "--trust"]) == 0
    session = onnxruntime.InferenceSession(str(run / "quantized.onnx"))
    about = session.get_modelmeta().custom_metadata_map
    assert (about["size"], about["mean"], about["std"]) == ("16 24", "0.5 0.5", "0.2 0.3")
    assert about["backbone"] == "my_net:make"
    assert session.run(None, {"images": images.numpy()})[0].shape == (2, 3)


def test_a_network_that_timm_saved_in_a_folder(tmp_path, monkeypatch, capsys):
    overlay = {"input_size": (3, 32, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    network = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=overlay)
    save_for_hf(network, tmp_path / "mine", model_config={"label_names": ["ant bear", "bee", "cat"]})
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name / "0.png")
    monkeypatch.chdir(tmp_path)
    run = played(tmp_path / "run", "--backbone", "local-dir:mine", "--data", "images")
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["backbone"] == f"local-dir:{tmp_path / 'mine'}"
    assert {name: kept["path"] for name, kept in config["inputs"].items()} == {
        "backbone": str(tmp_path / "mine" / "config.json"),
        "weights": str(tmp_path / "mine" / "pytorch_model.bin"),
        "data": str(tmp_path / "images"),
    }
    (tmp_path / "mine").rename(tmp_path / "moved")
    loaded = zerosum.load(run)
    assert input_space(loaded) == InputSpace(3, (32, 48), (0.5,) * 3, (0.25,) * 3)
    assert label_names(loaded) == ("ant bear", "bee", "cat")
    assert report.main([str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    for said in ("3 × 32 × 48", "0.5, 0.5, 0.5", "0.25, 0.25, 0.25", "ant bear, bee, cat"):
        assert said in page
    assert export.main([str(run)]) == 0
    about = onnxruntime.InferenceSession(str(run / "quantized.onnx")).get_modelmeta().custom_metadata_map
    assert about["classes"].splitlines() == ["ant bear", "bee", "cat"]


def test_a_folder_of_timms_that_changed_or_moved_is_noticed_by_a_resumed_run(tmp_path, capsys):
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path / "mine")
    run = played(tmp_path / "run", "--backbone", f"local-dir:{tmp_path / 'mine'}", "--input-size", "3", "32", "32")
    (tmp_path / "mine").rename(tmp_path / "moved")

    def resumed(*arguments):
        (run / "summary.json").unlink(missing_ok=True)  # as if it had been interrupted at its end
        code = main(["adasg", "--resume", str(run), *arguments])
        return code, capsys.readouterr().err

    code, said = resumed()
    assert code == 2
    assert "mine/config.json: it is gone; if it was moved, give its new place with --backbone" in said
    assert resumed("--backbone", f"local-dir:{tmp_path / 'moved'}")[0] == 0
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "moved" / "pytorch_model.bin")
    code, said = resumed("--backbone", f"local-dir:{tmp_path / 'moved'}")
    assert code == 2
    assert "pytorch_model.bin is not what the run was started with" in said


def test_weights_of_another_input_and_the_averaged_ones_of_two(tmp_path):
    network = timm.create_model("cifar_resnet20", num_classes=3, in_chans=1)
    other = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    torch.save({"model": other, "model_ema": network.state_dict()}, tmp_path / "w.pth")
    given = ["--backbone", "cifar_resnet20", "--weights", str(tmp_path / "w.pth"), "--weights-key", "model_ema"]
    run = played(
        tmp_path / "run", *given, "--num-classes", "3", "--input-size", "1", "16", "16", "--mean=0.5", "--std=1"
    )
    loaded = zerosum.load(run)
    assert input_space(loaded) == InputSpace(1, (16, 16), (0.5,), (1.0,))
    assert loaded(torch.randn(2, 1, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "no_such_nets:make"], "backbone no_such_nets:make: no module no_such_nets"),
        (
            ["--backbone", "my_net:make"],
            "my_net:make does not say what input it takes; give --input-size, --mean, --std",
        ),
        ([*OWN, "--backbone-args", "width"], "--backbone-args width: expected key=value"),
        ([*OWN, "--num-classes", "2"], "--num-classes is for timm's"),
        (["--backbone", "local-dir:/nowhere"], "backbone local-dir:/nowhere: expected a folder with config.json"),
        (["--input-size", "3", "8", "8"], "timm's weights have 1 channels; give --weights"),
        (["--mean", "0.5", "0.5"], "takes 1 channels and has --mean 0.5 0.5"),
        (["--mean", "nan"], "--mean (nan,): expected a number"),
        (["--weights-key", "ema"], "--weights-key ema: no file is read that it could choose in"),
    ],
)
def test_bad_names_and_options_are_refused_in_one_line(tmp_path, my_net, capsys, arguments, message):
    assert main(["adasg", *arguments, "--out", str(tmp_path / "run")]) == 2
    text = capsys.readouterr().err.strip()
    assert message in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_networks_from_python_stay_what_they_are(my_net):
    network = load_backbone("my_net:make", input_size=(2, 16, 24), mean=(0.5,), std=(0.2,))
    assert type(network) is torch.nn.Sequential
    assert network(torch.randn(1, 2, 16, 24)).shape == (1, 3)
