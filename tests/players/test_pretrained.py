"""Networks as timm saves them, in a folder or on the hub, and timm's networks at another input."""

import json
import shutil

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from timm.models import save_for_hf

from tests.players.test_backbones import Bomb
from zerosum.players import InputSpace, find_backbone, input_space, label_names, load_backbone

NAMES = ["ant", "bee", "cat", "dog", "eel"]
SPACE = InputSpace(1, (48, 32), (0.25,), (0.5,))


@pytest.fixture
def saved(tmp_path):
    """A folder of timm's, of a network with five classes on small grey images."""
    torch.manual_seed(0)
    overlay = {"input_size": (1, 48, 32), "mean": (0.25,), "std": (0.5,)}
    network = timm.create_model("test_resnet", num_classes=5, in_chans=1, pretrained_cfg_overlay=overlay).eval()
    save_for_hf(network, tmp_path / "saved", model_config={"label_names": NAMES})
    return network, tmp_path / "saved"


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_folder_says_classes_input_and_names(saved):
    network, folder = saved
    loaded, architecture = find_backbone(f"local-dir:{folder}")
    assert same(loaded, network)
    assert input_space(loaded) == SPACE
    assert label_names(loaded) == tuple(NAMES)
    assert not loaded.training
    shutil.rmtree(folder)  # what is kept of it needs no folder, nor names one
    again = architecture.build()
    assert again.state_dict().keys() == network.state_dict().keys()
    assert input_space(again) == SPACE
    assert label_names(again) == tuple(NAMES)
    assert str(folder) not in json.dumps(dict(architecture.args))


@pytest.mark.parametrize("names", [{str(n): name for n, name in enumerate(NAMES)}, NAMES[:4], {"0": "ant", "9": "bee"}])
def test_names_are_those_of_all_classes_or_none(saved, names):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"label_names": names}))
    expected = tuple(NAMES) if len(names) == 5 else None
    assert label_names(load_backbone(f"local-dir:{folder}")) == expected


def test_a_transformer_of_another_size_comes_back_from_a_folder(tmp_path):
    network = timm.create_model("digits_vit", num_classes=3, img_size=(16, 8))
    save_for_hf(network, tmp_path / "vit", safe_serialization=True)
    loaded = load_backbone(f"local-dir:{tmp_path / 'vit'}")
    assert same(loaded, network)
    assert input_space(loaded).size == (16, 8)
    assert loaded(torch.randn(1, 1, 16, 8)).shape == (1, 3)


def test_other_weights_and_other_statistics_for_what_a_folder_describes(saved, tmp_path):
    network, folder = saved
    assert not same(load_backbone(f"local-dir:{folder}", "random"), network)
    loaded = load_backbone(f"local-dir:{folder}", folder / "pytorch_model.bin", mean=(0.75,))
    assert same(loaded, network)
    assert input_space(loaded) == SPACE._replace(mean=(0.75,))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "expected a folder with config.json as timm's save_for_hf writes it"),
        (lambda f: (f / "config.json").write_text("{"), "config.json does not describe a network of timm's"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json does not describe a network of timm's"),
        (lambda f: (f / "config.json").write_text('{"architecture": "os:mkdir"}'), "timm knows no such network"),
        (lambda f: (f / "config.json").write_text('{"architecture": "hf-hub:a/b"}'), "timm knows no such network"),
        (
            lambda f: (f / "config.json").write_text('{"architecture": "test_resnet", "model_args": {"cake": 1}}'),
            "timm cannot build it so: TypeError.*cake",
        ),
        (
            lambda f: (f / "config.json").write_text(
                '{"architecture": "test_resnet", "model_args": {"checkpoint_path": "elsewhere.pth"}}'
            ),
            "checkpoint_path cannot be given",
        ),
        (lambda f: (f / "pytorch_model.bin").unlink(), "no checkpoint there; expected model.safetensors or"),
        (lambda f: torch.save({"a": Bomb(f / "ran")}, f / "pytorch_model.bin"), "would run code are refused"),
    ],
)
def test_folders_of_something_else_are_refused_and_run_nothing(saved, spoil, message):
    _, folder = saved
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_backbone(f"local-dir:{folder}")
    assert not (folder / "ran").exists()


def test_one_checkpoint_of_any_name_is_taken_and_of_two_none(saved):
    network, folder = saved
    (folder / "pytorch_model.bin").rename(folder / "best.pth")
    assert same(load_backbone(f"local-dir:{folder}"), network)
    shutil.copy(folder / "best.pth", folder / "last.pth")
    with pytest.raises(ValueError, match="2 checkpoints there; give one with --weights"):
        load_backbone(f"local-dir:{folder}")


def cached(folder, cache):
    """A repository as the hub's client keeps it."""
    repository = cache / "models--someone--ants"
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_a_repository_is_taken_from_the_cache_without_asking(saved, tmp_path, monkeypatch):
    network, folder = saved
    cached(folder, tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("the hub was asked"))
    loaded, architecture = find_backbone("hf-hub:someone/ants")
    assert same(loaded, network)
    assert input_space(loaded) == SPACE
    assert (architecture.kind, architecture.name) == ("timm", "test_resnet")


def test_without_a_hub_a_repository_is_refused_promptly(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the slow download was tried"))
    with pytest.raises(ConnectionError, match=r"'hf-hub:someone/ants': no connection to .*, and none cached"):
        load_backbone("hf-hub:someone/ants")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "cifar_resnet20", "digits_vit"])
def test_a_network_of_timms_at_another_input(name):
    network, architecture = find_backbone(name, "random", input_size=(1, 48, 32), mean=(0.5,), std=(0.25,))
    assert input_space(network) == input_space(architecture.build()) == (1, (48, 32), (0.5,), (0.25,))
    assert network(torch.randn(2, 1, 48, 32)).shape == (2, network.num_classes)


def test_pretrained_weights_at_another_size_and_statistics():
    network = load_backbone("digits_resnet8", input_size=(1, 16, 16), mean=(0.1,))
    assert same(network, load_backbone("digits_resnet8"))
    assert input_space(network) == (1, (16, 16), (0.1,), (0.376,))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("cifar_resnet20", {"weights": "random", "input_size": (1, 32, 32)}, "takes 1 channels and has --mean 0.485"),
        ("digits_resnet8", {"num_classes": 5}, "--num-classes 5 …: timm's weights have 10 classes; give --weights"),
        ("digits_resnet8", {"input_size": (3, 8, 8)}, "--input-size 3 …: timm's weights have 1 channels"),
        ("test_resnet", {"weights": "random", "args": {"in_chans": 1}}, r"in_chans \(say it with --input-size\)"),
        ("test_resnet", {"weights": "random", "args": {"cake": 1}}, "timm cannot build it so: TypeError: .*cake"),
        ("test_resnet", {"weights": "random", "args": {"pretrained": True}}, "pretrained cannot be given"),
        ("digits_resnet8", {"args": {"cake": 1}}, "timm cannot build it so: .*cake"),
        ("digits_resnet8", {"args": {"pretrained": True}}, "pretrained cannot be given"),
        ("test_resnet.no_such_tag", {"weights": "random"}, "Invalid pretrained tag .no_such_tag. for test_resnet"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_option(name, given, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(name, **given)


def test_further_arguments_of_timms_constructors():
    network = load_backbone("digits_vit", "random", args={"depth": 1})
    assert len(network.blocks) == 1
