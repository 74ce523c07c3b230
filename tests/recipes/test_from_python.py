"""``zerosum.quantize``: options, seeds, data, callbacks, and what comes back."""

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import zerosum
from tests.handed_in import PIXELS, Small, quantize
from zerosum.players import load_backbone, load_quantized
from zerosum.players.data import Digits
from zerosum.runs.run import main


@pytest.mark.parametrize(
    ("options", "said"),
    [({"roundz": 3}, "roundz: no such option; did you mean rounds"), ({"weights": "random"}, "weights: only of a")],
)
def test_an_option_that_is_none_is_a_type_error(options, said):
    with pytest.raises(TypeError, match=said):
        quantize(Small(), input_size=(3, 12, 20), **PIXELS, **options)


def test_options_are_the_recipes_own_and_a_schemes_are_named_as_on_the_command_line(tmp_path):
    result = quantize(
        Small(),
        "w3a8",
        input_size=(3, 12, 20),
        **PIXELS,
        weight_range="minmax",
        first_last_bits="w8a8",
        recipe="reconstruction",
        images="noise",
        warmup=None,
        rounds=1,
        out=tmp_path / "run",
    )
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["recipe"] == "reconstruction"
    assert config["options"]["scheme"]["weight_range"] == "minmax"
    assert config["options"]["first_last_bits"] == "w8a8"
    assert config["command"].startswith("zerosum.quantize(<Small>, 'w3a8', ")
    assert result.network is not None


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_seed_fixes_the_network_from_python_as_from_the_command_line(tmp_path):
    options = {"seed": 3, "rounds": 3, "warmup": 1, "block_steps": 2, "pool": 8, "batch_size": 16, "calibration": 1}
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    for name in ("one", "two"):
        assert main(["adasg", *flags, "--bits", "w2a3", "--device", "cpu", "--out", str(tmp_path / name)]) == 0
    from_line = [load_quantized(tmp_path / name / "quantized.safetensors") for name in ("one", "two")]
    handed_in = load_backbone("digits_resnet8")
    torch.manual_seed(123)  # whatever was drawn before
    given = zerosum.quantize(handed_in, "w2a3", progress=False, device="cpu", **options).network
    named = zerosum.quantize("digits_resnet8", "w2a3", progress=False, device="cpu", **options).network
    assert same(from_line[0], from_line[1])
    assert same(from_line[0], given)
    assert same(from_line[0], named)
    other = zerosum.quantize(handed_in, "w2a3", progress=False, device="cpu", **options | {"seed": 4}).network
    assert not same(given, other)


def test_random_numbers_and_switches_of_the_caller_are_left_alone():
    network = Small()
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.randn(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    with torch.inference_mode():
        quantize(network, input_size=(3, 12, 20), **PIXELS)
        assert torch.is_inference_mode_enabled()
    assert (torch.randn(1), np.random.rand()) == expected


def test_it_is_silent_on_request_and_leaves_no_folder_unless_given_one(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    result = quantize(Small(), input_size=(3, 12, 20), **PIXELS)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    folder = result.save(tmp_path / "kept")
    assert {"config.json", "summary.json", "quantized.safetensors", "metrics.jsonl"} <= {
        p.name for p in folder.iterdir()
    }
    with pytest.raises(FileExistsError, match="kept"):
        result.save(folder)


def data(count=20):
    return TensorDataset(torch.randn(count, 3, 12, 20), torch.arange(count) % 4)


@pytest.mark.parametrize("loader", [lambda: data(), lambda: DataLoader(data(), batch_size=7)])
def test_it_is_measured_on_a_loader_or_a_data_set(loader):
    torch.manual_seed(0)
    result = quantize(Small(), "w8a8", input_size=(3, 12, 20), **PIXELS, data=loader())
    assert result.summary["images"] == 20
    assert result.summary["after_top1"] == pytest.approx(result.summary["teacher_top1"], abs=15)
    assert "top-1" in repr(result)


class Stop(zerosum.Watcher):
    """A callback that ends the first match of a game after so many rounds."""

    def __init__(self, after):
        self.after, self.rounds = after, 0

    def on_round(self, match, record):
        self.rounds += 1
        if record.round == self.after:
            match.stop()


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_callback_may_end_it_early_and_gets_what_there_is(after, tmp_path):
    watcher = Stop(after)
    network = Small()
    options = {"rounds": 8, "warmup": 2, "out": tmp_path / "run", "data": data()}
    result = quantize(network, input_size=(3, 12, 20), **PIXELS, watchers=[watcher], **options)
    assert (watcher.rounds, result.interrupted) == (after, True)
    assert result.network(torch.randn(2, 3, 12, 20)).shape == (2, 4)
    assert same(zerosum.load(tmp_path / "run", into=network), result.network)


class Interrupting(zerosum.Watcher):
    """Somebody presses Ctrl-C in the third round."""

    def on_round(self, match, record):
        if record.round == 3:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_it_after_the_round_with_what_there_is():
    result = quantize(Small(), input_size=(3, 12, 20), **PIXELS, watchers=[Interrupting()], rounds=9, warmup=1)
    assert result.interrupted
    assert "interrupted" in repr(result)
    assert result.summary["rounds"] == 3


class Own(torch.nn.Module):
    """A network of digits that returns a dict."""

    def __init__(self):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.features = torch.nn.Sequential(
            *(conv(1, 16, 3, padding=1), norm(16), torch.nn.ReLU()),
            *(conv(16, 32, 3, 2, padding=1), norm(32), torch.nn.ReLU()),
            *(conv(32, 64, 3, padding=1), norm(64), torch.nn.ReLU()),
            *(conv(64, 64, 3, 2, padding=1), norm(64), torch.nn.ReLU()),
        )
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x):
        return {"logits": self.head(self.features(x).mean((2, 3)))}


def digits(split, mean=0.3, std=0.37):
    pixels, labels = zip(*Digits(split, lambda image: torch.tensor(np.array(image) / 255)), strict=True)
    return (torch.stack(pixels)[:, None].float() - mean) / std, torch.tensor(labels)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network, (images, labels) = Own(), digits("train")
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        chosen = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[chosen])["logits"], labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


SCRIPT = """
    import sys
    import numpy as np, onnxruntime, torch, zerosum
    from tests.recipes.test_from_python import Own, digits

    images, _ = digits("held-out")
    with torch.no_grad():
        loaded = zerosum.load(sys.argv[1] + "/saved", into=Own())(images)["logits"].numpy()
    session = onnxruntime.InferenceSession(sys.argv[1] + "/net.onnx")
    exported = session.run(None, {"images": images.numpy()})[0]
    np.save(sys.argv[1] + "/found.npy", np.stack([loaded, exported]))
"""


def test_a_trained_network_is_quantized_saved_and_exported_and_runs_the_same_elsewhere(trained, tmp_path):
    options = {"rounds": 30, "warmup": 20, "block_steps": 40, "pool": 128, "measure_every": 100, "batch_size": 32}
    result = zerosum.quantize(
        trained, "w2a3", input_size=(1, 8, 8), mean=0.3, std=0.37, data="digits", progress=False, **options
    )
    assert result.summary["teacher_top1"] > 90
    assert result.summary["before_top1"] < result.summary["teacher_top1"] - 2
    assert result.summary["after_top1"] > result.summary["before_top1"]
    result.save(tmp_path / "saved")
    assert result.export(tmp_path / "net.onnx", progress=False)["agreement"] == 100
    with pytest.raises(ValueError, match=r"\.onnx or \.pt2"):
        result.export(tmp_path / "net.tflite", progress=False)
    assert "<html" in result.report(tmp_path / "report.html").read_text()
    subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)], check=True)
    loaded, exported = np.load(tmp_path / "found.npy")
    with torch.no_grad():
        expected = result.network(digits("held-out")[0])["logits"].numpy()
    np.testing.assert_array_equal(loaded, expected)
    assert (exported.argmax(1) == expected.argmax(1)).all()
    with pytest.raises(ValueError, match="into=network"):
        zerosum.load(tmp_path / "saved")
