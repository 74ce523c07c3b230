"""Networks of a factory, and what they take."""

import sys

import pytest
import timm
import torch
from torch import nn

from zerosum.players import Architecture, InputSpace, arguments_of, find_backbone, input_space, load_backbone

NETS = """
import timm
from torch import nn
from zerosum.players import InputSpace

WIDTH = 3


def plain(width=4, classes=3):
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.Flatten(), nn.Linear(width * 16, classes)).train()


def telling():
    network = plain()
    network.input_space = InputSpace(2, (6, 6), (0.1, 0.2), (0.3, 0.4))
    return network


def of_timm():
    return timm.create_model("test_resnet")


def number():
    return 3


def broken():
    raise KeyError("cake")
"""
SPACE = {"input_size": (2, 6, 6), "mean": (0.5,), "std": (0.2, 0.3)}


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of the user's."""
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "hungry_nets.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_nets", None)


def test_a_factory_is_called_with_its_arguments(nets):
    network, architecture = find_backbone("my_nets:plain", args={"width": 5}, **SPACE)
    assert network[0].weight.shape == (5, 2, 3, 3)
    assert not network.training
    assert architecture == Architecture("factory", "my_nets:plain", {"width": 5})
    assert input_space(network) == InputSpace(2, (6, 6), (0.5, 0.5), (0.2, 0.3))


def test_weights_are_loaded_into_what_a_factory_gives(nets, tmp_path):
    network = load_backbone("my_nets:plain", **SPACE)
    torch.save({"net": network.state_dict()}, tmp_path / "w.pth")
    loaded = load_backbone("my_nets:plain", tmp_path / "w.pth", **SPACE)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"not of my_nets:plain: 0.weight has shape \(4, 2, 3, 3\), expected \(5, 2"):
        load_backbone("my_nets:plain", tmp_path / "w.pth", args={"width": 5}, **SPACE)


def test_what_a_network_says_of_its_input_is_taken_and_can_be_said_otherwise(nets):
    assert input_space(load_backbone("my_nets:telling")) == (2, (6, 6), (0.1, 0.2), (0.3, 0.4))
    assert input_space(load_backbone("my_nets:telling", mean=(0.5,))) == (2, (6, 6), (0.5, 0.5), (0.3, 0.4))
    size = timm.create_model("test_resnet").pretrained_cfg["input_size"][1:]
    assert input_space(load_backbone("my_nets:of_timm")).size == size
    assert input_space(load_backbone("my_nets:of_timm", input_size=(3, 32, 48))).size == (32, 48)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("no_such_nets:plain", SPACE, "no module no_such_nets; is the folder that it lies in on PYTHONPATH"),
        ("my_nets.inner:plain", SPACE, "importing my_nets.inner failed: .*not a package|no module my_nets.inner"),
        ("hungry_nets:plain", SPACE, "importing hungry_nets failed: ModuleNotFoundError: .*nothing_of_that_name"),
        ("my_nets:plan", SPACE, "my_nets has no plan; nearest: plain"),
        ("my_nets:WIDTH", SPACE, "'int' object is not callable"),
        ("my_nets:number", SPACE, "expected a torch.nn.Module, it returned int"),
        ("my_nets:broken", SPACE, r"broken\(\) failed: KeyError: 'cake'"),
        ("my_nets:plain", SPACE | {"args": {"wide": 2}}, r"plain\(wide=2\) failed: TypeError: .*wide"),
        ("my_nets:plain", {}, "does not say what input it takes; give --input-size, --mean, --std"),
        ("my_nets:plain", {"input_size": (2, 6, 6)}, "give --mean, --std"),
        ("my_nets:plain", SPACE | {"mean": (0.1, 0.2, 0.3)}, "takes 2 channels and has --mean 0.1 0.2 0.3"),
        ("my_nets:plain", SPACE | {"std": (0.0,)}, "--std 0.0 0.0: expected numbers above 0"),
        ("my_nets:plain", SPACE | {"input_size": (2, 0, 6)}, "expected 1 or more of each"),
        ("my_nets:plain", SPACE | {"num_classes": 4}, "--num-classes is for timm's; say it with --backbone-args"),
        ("my_nets:plain", SPACE | {"weights": "random"}, "random is for timm's"),
        ("my_nets:plain", SPACE | {"weights": "none.pth"}, "none.pth: no such file"),
        ("my_nets:", SPACE, "timm knows no such network"),
    ],
)
def test_what_is_no_factory_is_refused_by_name(nets, name, given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_backbone(name, **given)


def test_arguments_are_json_or_text():
    found = arguments_of(["width=32", "act=relu", "sizes=[1, 2]", "bias=false", "text=a=b"])
    assert found == {"width": 32, "act": "relu", "sizes": [1, 2], "bias": False, "text": "a=b"}
    for texts in (["width"], ["=3"], ["a b=3"], ["a=1", "a=2"]):
        with pytest.raises(ValueError, match=r"--backbone-args .*: expected key=value, each key once"):
            arguments_of(texts)


def test_the_architecture_of_a_module_that_is_handed_in():
    architecture = Architecture.of(nn.Conv2d(1, 1, 1))
    assert architecture == Architecture("module", "torch.nn.modules.conv.Conv2d")
    with pytest.raises(ValueError, match="cannot be built; hand it in again"):
        architecture.build()
