"""``zerosum.quantize``: any module, from Python; and that it is left exactly as it was."""

import copy
import json
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zerosum
from zerosum.players import InputSpace, load_quantized
from zerosum.players.outputs import logits_of
from zerosum.runs.run import main

SHORT = {"rounds": 2, "warmup": 1, "block_steps": 1, "pool": 8, "batch_size": 4, "device": "cpu"}
PIXELS = {"mean": 0.5, "std": 0.25}


class Small(nn.Module):
    """Images (N, 3, 12, 20) → logits (N, 4)."""

    def __init__(self, channels=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.features(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(x.mean((2, 3)))


class Returning(Small):
    def __init__(self, wrapped):
        super().__init__()
        self.wrapped = wrapped

    def forward(self, x):
        return self.wrapped(super().forward(x))


class Shared(Small):
    def __init__(self):
        super().__init__()
        self.blocks[1].weight = self.blocks[0].weight


class Bare(nn.Module):
    """No image, no logits."""

    def forward(self, x):
        return x


def state(network):
    """All that a caller could see of a module."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()]
    modes = [module.training for module in network.modules()]
    flags = [(p.requires_grad, p.dtype, p.grad, p.is_contiguous()) for p in network.parameters()]
    names = [sorted(vars(module)) for module in network.modules()]
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    return hooks, modes, flags, names, tensors


def assert_as_before(network, before):
    *flags, tensors = before
    *now, found = state(network)
    assert now == flags
    assert all(torch.equal(found[name], tensors[name]) for name in tensors | found)


def quantize(network, bits="w4a4", **options):
    return zerosum.quantize(network, bits, **{"progress": False} | SHORT | options)


@pytest.mark.parametrize(
    ("make", "options"),
    {
        "plain, in train mode": (Small, {}),
        "four channels": (lambda: Small(4), {"input_size": (4, 12, 20)}),
        "one channel": (lambda: Small(1), {"input_size": (1, 12, 20)}),
        "a dict": (lambda: Returning(lambda y: {"logits": y, "aux": y * 2}), {}),
        "a dict of one": (lambda: Returning(lambda y: {"classes": y}), {}),
        "an object": (lambda: Returning(lambda y: SimpleNamespace(logits=y)), {}),
        "an auxiliary head": (lambda: Returning(lambda y: (y, y[:, :2])), {}),
        "a list, by logits=": (lambda: Returning(lambda y: [y[:, :2], y]), {"logits": lambda found: found[1]}),
        "shared weights": (Shared, {}),
        "float16": (lambda: Small().half(), {}),
        "bfloat16": (lambda: Small().bfloat16(), {}),
        "float64": (lambda: Small().double(), {}),
        "frozen parts": (lambda: Small().requires_grad_(False), {}),
        "compiled": (lambda: torch.compile(Small()), {}),
        "no BatchNorm, but attention": (
            lambda: torchvision.models.VisionTransformer(12, 4, 2, 2, 16, 32, num_classes=4),
            {"input_size": (3, 12, 12)},
        ),
        "torchvision's ResNet-18": (
            lambda: torchvision.models.resnet18(num_classes=4),
            {"input_size": (3, 32, 32)},
        ),
    }.values(),
    ids=lambda value: None,
)
def test_any_module_is_quantized_and_stays_as_it_was(make, options):
    network = make()
    before = state(network)
    result = quantize(network, **{"input_size": (3, 12, 20)} | PIXELS | options)
    assert_as_before(network, before)
    assert not result.network.training
    assert 0 < result.summary["quantized_bytes"] < result.summary["float_bytes"]
    images = torch.randn(2, *options.get("input_size", (3, 12, 20)))
    images = images.to(next(result.network.parameters(), images))
    pick = options.get("logits", logits_of)
    assert pick(result.network(images)).shape == (2, 4)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (Bare, {}, "Bare has no parameters, so nothing to quantize"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), {}, "does not know|do not know their shapes yet"),
        (lambda: nn.Conv2d(3, 4, 3), {}, r"expected logits \(N, classes\)"),
        (lambda: nn.Conv2d(1, 4, 3), {}, r"Conv2d does not run on images of shape \(2, 3, 12, 20\)"),
        (lambda: Returning(lambda y: {"a": y, "b": y}), {}, "returns a dict of a, b: give logits="),
        (lambda: Returning(lambda y: y[:, 0]), {}, r"expected logits \(N, classes\)"),
        (lambda: Returning(lambda y: None), {}, "returns a NoneType: give logits="),
        (Small, {"logits": lambda y: y.nothing}, "AttributeError"),
        (Small, {"class_names": ["a"]}, "1 class names, and Small has 4 classes"),
        (Small, {"input_size": None}, r"give input_size=\(channels, height, width\)"),
        (Small, {"mean": None}, "give mean="),
        (Small, {"std": 0}, "expected numbers above 0"),
        (Small, {"mean": (0.5, 0.5)}, "takes 3 channels"),
        (Small, {"input_size": (12, 20)}, "expected"),
        (Small, {"input_size": (3, 0, 20)}, "expected 1 or more"),
        (Small, {"bits": "w9a4"}, "w9a4"),
        (Small, {"rounds": "many"}, "--rounds: 'many' is no"),
        (Small, {"recipe": "saddle"}, "quantizes no network that is handed in"),
        (Small, {"data": [1]}, "data"),
    ],
)
def test_what_cannot_be_quantized_is_refused_in_a_sentence(make, options, said):
    network = make()
    with pytest.raises(ValueError, match=said) as caught:
        quantize(network, **{"input_size": (3, 12, 20)} | PIXELS | options)
    assert "\n" not in str(caught.value)


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
    options = {"seed": 3, "rounds": 3, "warmup": 1, "block_steps": 2, "pool": 8}
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    for name in ("one", "two"):
        assert main(["adasg", *flags, "--bits", "w2a3", "--device", "cpu", "--out", str(tmp_path / name)]) == 0
    from_line = [load_quantized(tmp_path / name / "quantized.safetensors") for name in ("one", "two")]
    handed_in = zerosum.players.load_backbone("digits_resnet8")
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
    assert result.summary["rounds"] == 3


SCRIPT = """
    import sys
    import numpy as np, onnxruntime, torch, zerosum
    from tests.recipes.test_from_python import Returning

    network = Returning(lambda y: {"logits": y})
    images = torch.load(sys.argv[2])
    with torch.no_grad():
        loaded = zerosum.load(sys.argv[1] + "/saved", into=network)(images)["logits"].numpy()
    session = onnxruntime.InferenceSession(sys.argv[1] + "/net.onnx")
    exported = np.concatenate([session.run(None, {"images": part.numpy()})[0] for part in images.split(5)])
    np.save(sys.argv[1] + "/found.npy", np.stack([loaded, exported]))
"""


def test_a_new_process_loads_and_runs_what_was_saved_and_exported(tmp_path):
    torch.manual_seed(0)
    network, images = Returning(lambda y: {"logits": y}), torch.randn(20, 3, 12, 20)
    result = quantize(network, "w8a8", input_size=(3, 12, 20), **PIXELS, class_names=list("abcd"), rounds=8)
    result.save(tmp_path / "saved")
    figures = result.export(tmp_path / "net.onnx", progress=False)
    assert figures["agreement"] == 100
    with pytest.raises(ValueError, match=r"\.onnx or \.pt2"):
        result.export(tmp_path / "net.tflite", progress=False)
    assert "<html" in result.report(tmp_path / "report.html").read_text()
    torch.save(images, tmp_path / "images.pt")
    script = textwrap.dedent(SCRIPT)
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(tmp_path / "images.pt")], check=True)
    loaded, exported = np.load(tmp_path / "found.npy")
    with torch.no_grad():
        expected = result.network(images)["logits"].numpy()
    np.testing.assert_allclose(loaded, expected, rtol=1e-5, atol=1e-6)
    assert (exported.argmax(1) == expected.argmax(1)).all()
    with pytest.raises(ValueError, match="into=network"):
        zerosum.load(tmp_path / "saved")


def test_raw_pixels_get_images_in_their_range():
    generator = zerosum.recipes.common.source.generated
    config = zerosum.recipes.adasg.Config()
    for std in (1.0, 1 / 255):
        pair = zerosum.recipes.common.pair.Pair(
            Small(), zerosum.players.Bits(8, 8), space=InputSpace(3, (12, 20), (0.0,) * 3, (std,) * 3)
        )
        source = generator(pair, config)
        pixels = source.images(source.sample()) * std
        assert 0.4 < pixels.mean() < 0.5
        assert 0.2 < pixels.std() < 0.3


@pytest.mark.parametrize("kind", ["ViT", "ResNet"])
def test_networks_of_transformers(kind, tmp_path):
    library = pytest.importorskip("transformers")
    if kind == "ViT":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = library.ViTConfig(image_size=16, patch_size=4, num_labels=3, **shape)
        network = library.ViTForImageClassification(config)
    else:
        config = library.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
        network = library.ResNetForImageClassification(config)
    before = copy.deepcopy(state(network))
    with pytest.raises(ValueError, match="does not say what images it takes"):
        quantize(network)
    network.save_pretrained(tmp_path)
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = type(network).from_pretrained(tmp_path)
    result = quantize(found)
    assert result.network(torch.randn(2, 3, 16, 16)).logits.shape == (2, 3)
    assert quantize(network, input_size=(3, 16, 16), mean=0.5, std=0.5).summary["rounds"] > 2
    assert_as_before(network, before)
