"""``python -m zerosum.export`` and ``zerosum.load``, on a run's folder alone."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import zerosum
from tests.players.test_loaders import write_mnist
from zerosum import export
from zerosum.players import load_data, load_quantized
from zerosum.players.export.command import _published
from zerosum.runs.run import main as play

PLAY = ["adasg", "--rounds", "3", "--batch-size", "4", "--calibration", "2", "--bits", "w4a8"]
PLAY += ["--warmup", "1", "--block-steps", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the default network."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    assert play([*PLAY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def say(capsys):
    found = capsys.readouterr()
    return " ".join(found.out.split()), " ".join(found.err.split())


def test_load_gives_the_network_back(folder):
    network = zerosum.load(folder)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(images), load_quantized(folder / "quantized.safetensors")(images))
    assert not network.training


def test_a_run_is_exported_and_compared(folder, capsys):
    assert export.main([str(folder), "--check", "digits"]) == 0
    out, _ = say(capsys)
    table = json.loads((folder / "export.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    assert table["agreement"] >= 99
    assert table["images"] == "digits"
    assert table["pytorch_top1"] == pytest.approx(summary["after_top1"], abs=0.5)
    assert table["exported_top1"] == pytest.approx(table["pytorch_top1"], abs=0.3)
    assert table["exported_bytes"] == (folder / "quantized.onnx").stat().st_size
    assert f"{table['exported_top1']:.2f} %" in out
    assert "Runs with --weight-grid symmetric and --sums quantized" in out
    assert sorted(path.name for path in folder.iterdir() if "onnx" in path.name) == ["quantized.onnx"]
    assert export.main([str(folder)]) == 0  # over the file that is there; the run's own data
    assert json.loads((folder / "export.json").read_text())["images"] == "digits"


def test_check_fails_where_the_file_does_something_else(folder, monkeypatch, capsys):
    from zerosum.players.export import onnx_file

    load = onnx_file.load_onnx
    monkeypatch.setattr(onnx_file, "load_onnx", lambda path: (lambda x: load(path)[0](-x), {}))
    assert export.main([str(folder), "--check", "digits"]) == 1
    out, _ = say(capsys)
    assert "agree, fewer than 99 %" in out


def test_a_data_set_by_name_is_found_where_the_run_found_it(folder, tmp_path):
    write_mnist(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["options"] |= {"data": "torch/mnist", "data_root": str(tmp_path), "data_split": "train"}
    (folder / "config.json").write_text(json.dumps(config))
    assert export.main([str(folder)]) == 0
    table = json.loads((folder / "export.json").read_text())
    assert (table["images"], table["pytorch_top1"] is None) == ("torch/mnist", False)


def test_weights_are_published_where_timm_or_a_package_has_them(folder):
    for weights, expected in {None: True, "package:x": True, "random": False, "/x.pth": False}.items():
        config = json.loads((folder / "config.json").read_text())
        config["options"]["weights"] = weights
        (folder / "config.json").write_text(json.dumps(config))
        assert _published(folder) is expected
    (folder / "config.json").unlink()
    assert not _published(folder)


def test_a_program_runs_with_torch_alone(folder, tmp_path):
    assert export.main([str(folder), "--format", "pt2"]) == 0
    assert json.loads((folder / "export.json").read_text())["agreement"] == 100
    images = next(iter(load_data("digits", zerosum.load(folder))))[0][:5]
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import sys, torch; network = torch.export.load(sys.argv[1]).module();"
        "torch.save(network(torch.load(sys.argv[2])), sys.argv[2]);"
        "assert not {'zerosum', 'players', 'timm'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", script, folder / "quantized.pt2", tmp_path / "images.pt"], check=True, cwd=tmp_path
    )
    found, expected = torch.load(tmp_path / "images.pt"), zerosum.load(folder)(images).detach()
    close = torch.isclose(found, expected, rtol=1e-4, atol=1e-4).all(dim=1)
    assert close.sum() >= 4  # of five: an activation on the edge between two levels may come to either
    assert torch.equal(found.argmax(dim=1), expected.argmax(dim=1))


def test_without_data_it_compares_on_random_images(folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["options"]["data"] = "/nowhere"
    (folder / "config.json").write_text(json.dumps(config))
    assert export.main([str(folder)]) == 0
    table = json.loads((folder / "export.json").read_text())
    assert table["images"] == "random images, because the run's own, /nowhere, cannot be read"
    assert table["pytorch_top1"] is None


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), [], "that run is not finished; go on with --resume"),
        (lambda f: shutil.rmtree(f), [], "no run (no summary.json)"),
        (lambda f: (f / "summary.json").write_text("{"), [], "cannot be read"),
        (lambda f: (f / "summary.json").write_text("{}"), [], "the run left nothing that can be loaded"),
        (lambda f: (f / "summary.json").write_text('{"result": "cake"}'), [], "kind 'cake'; kinds that are installed"),
        (lambda f: (f / "quantized.safetensors").write_bytes(b"x"), [], "not a quantized network that zerosum saved"),
        (lambda f: (f / "quantized.safetensors").unlink(), [], "quantized.safetensors: no such file"),
        (lambda f: None, ["--opset", "9"], "--opset 9: expected 18 to "),
        (lambda f: None, ["--check", "/nowhere"], "data /nowhere: no such folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder, capsys, spoil, arguments, message):
    spoil(folder)
    assert export.main([str(folder), *arguments]) == 2
    assert message in say(capsys)[1]
    assert not (folder / "quantized.onnx").exists()


def test_a_missing_package_is_named_with_its_install_line(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main([str(folder)]) == 2
    assert "needs the package onnxruntime; pip install 'zerosum[export]'" in say(capsys)[1]


def test_help_lists_the_options(capsys):
    assert export.main(["--help"]) == 0
    out, _ = say(capsys)
    assert "--opset INT" in out
    assert "RUN_DIR" in out
    assert export.main([]) == 2
