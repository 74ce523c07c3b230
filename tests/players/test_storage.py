"""Saved networks say how they are built; what they name is not run unasked."""

import copy
import json
import pickle
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from zerosum.players import (
    Architecture,
    Bits,
    InputSpace,
    Scheme,
    calibrate,
    find_backbone,
    input_space,
    label_names,
    load_quantized,
    quantize,
    save_quantized,
)

SPACE = InputSpace(2, (6, 9), (0.5, 0.4), (0.2, 0.3))


class Net(nn.Module):
    """A module of the user's, who says nothing about it."""

    def __init__(self, width=4, classes=3):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, width, 3), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))


def saved(path, network, architecture, space=SPACE, names=None, scheme=Scheme()):  # noqa: B008 (frozen)
    """A quantized copy in a file, and what it makes of images."""
    quantized = quantize(network.eval(), Bits(3, 4), scheme, space)
    images = torch.randn(5, space.channels, *space.size)
    calibrate(quantized, [images])
    save_quantized(path, quantized, architecture, space, scheme, names)
    return images, quantized(images)


def test_one_call_brings_the_network_back(tmp_path):
    network, architecture = find_backbone("digits_resnet8", "random", num_classes=7)
    images, logits = saved(tmp_path / "q.safetensors", network, architecture, input_space(network))
    loaded = load_quantized(tmp_path / "q.safetensors")
    assert torch.equal(loaded(images), logits)
    assert not loaded.training
    assert input_space(loaded) == input_space(network)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 0.02), (torch.bfloat16, 0.1), (torch.float64, 1e-5)])
def test_it_runs_in_other_floats(tmp_path, dtype, off):
    network, architecture = find_backbone("digits_resnet8", "random")
    images, logits = saved(
        tmp_path / "q.safetensors", network, architecture, input_space(network), scheme=Scheme(sums="quantized")
    )
    loaded = load_quantized(tmp_path / "q.safetensors").to(dtype)
    found = loaded(images.to(dtype))
    assert found.dtype == loaded.conv1.weight.dtype == dtype
    assert (found - logits).norm() <= off * logits.norm()
    assert loaded.conv1.parametrizations.weight.original.dtype == torch.uint8


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(sums="quantized")])
@pytest.mark.parametrize("trust", [False, True])
def test_a_factorys_network_comes_back_into_one_of_its_kind_or_by_trust(tmp_path, trust, scheme):
    network, architecture = Net(width=5), Architecture("factory", "tests.players.test_storage:Net", {"width": 5})
    images, logits = saved(tmp_path / "q.safetensors", network, architecture, names=("a", "b", "c"), scheme=scheme)
    into = None if trust else Net(width=5).train()
    before = copy.deepcopy(into)
    loaded = load_quantized(tmp_path / "q.safetensors", into=into, trust=trust)
    assert torch.equal(loaded(images), logits)
    assert not any(module.training for module in loaded.modules())
    assert input_space(loaded) == SPACE
    assert label_names(loaded) == ("a", "b", "c")
    if into is not None:
        assert vars(into).keys() == vars(before).keys()
        assert all(module.training for module in into.modules())
        assert all(torch.equal(a, b) for a, b in zip(into.parameters(), before.parameters(), strict=True))


def test_what_is_not_timms_is_refused_with_the_lines_to_type(tmp_path):
    path = tmp_path / "q.safetensors"
    saved(path, Net(), Architecture("factory", "tests.players.test_storage:Net"))
    with pytest.raises(ValueError, match=r"load\('.*', into=network\).*load\('.*', trust=True\)"):
        load_quantized(path)
    saved(path, Net(), Architecture.of(Net()))
    with pytest.raises(
        ValueError, match=r"test_storage\.Net that was handed in; .*load\('.*', into=network\)"
    ) as refused:
        load_quantized(path, trust=True)
    assert "trust=True" not in str(refused.value)
    assert load_quantized(path, into=Net()) is not None


def test_into_another_network_is_refused(tmp_path):
    path = tmp_path / "q.safetensors"
    saved(path, Net(), Architecture.of(Net()))
    for other in (Net(width=5), nn.Sequential(nn.Conv2d(2, 4, 3))):
        with pytest.raises(ValueError, match="into is built otherwise than it was"):
            load_quantized(path, into=other)


def renamed(path, **architecture):
    """The file, of another architecture: as a stranger may have written it."""
    with safe_open(path, framework="pt") as file:
        found = json.loads(file.metadata()["zerosum.quantized"])
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    found["architecture"] = architecture
    save_file(state, path, metadata={"zerosum.quantized": json.dumps(found)})


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("os:mkdir", {"path": "ran"}),
        ("subprocess:run", {"args": ["mkdir", "ran"]}),
        ("builtins:eval", {"source": "__import__('os').mkdir('ran')"}),
        ("stranger:make", {}),  # importing it is enough
    ],
)
def test_a_file_from_a_stranger_runs_nothing(tmp_path, monkeypatch, name, args):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text("import os\nos.mkdir('ran')\n")
    path = tmp_path / "q.safetensors"
    saved(path, Net(), Architecture.of(Net()))
    renamed(path, kind="factory", name=name, args=args)
    with pytest.raises(ValueError, match="not run unasked"):
        load_quantized(path)
    assert load_quantized(path, into=Net(), trust=True) is not None
    for kind in ("timm", "module"):
        renamed(path, kind=kind, name=name, args=args)
        with pytest.raises(ValueError, match=r"knows no such network|handed in"):
            load_quantized(path, trust=True)
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained", "cache_dir"])
def test_a_file_from_a_stranger_makes_timm_read_no_other(tmp_path, argument):
    network, architecture = find_backbone("digits_resnet8", "random")
    path = tmp_path / "q.safetensors"
    saved(path, network, architecture, input_space(network))
    renamed(path, kind="timm", name="digits_resnet8", args={argument: "elsewhere.pth"})
    with pytest.raises(ValueError, match=f"{argument} cannot be given"):
        load_quantized(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_quantized(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a quantized network"):
        load_quantized(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a quantized network"):
        load_quantized(tmp_path / "damaged.safetensors")
    for spoilt in ([], {"architecture": []}, {"architecture": {"kind": "cake", "name": "x"}}):
        save_file({"a": torch.zeros(1)}, path := tmp_path / "q.safetensors", {"zerosum.quantized": json.dumps(spoilt)})
        with pytest.raises(ValueError, match="not a quantized network"):
            load_quantized(path)


def test_a_loaded_network_is_copied_and_its_state_kept(tmp_path):
    """As its file; PyTorch does not pickle modules whose weights are computed."""
    images, logits = saved(tmp_path / "q.safetensors", Net(), Architecture.of(Net()))
    loaded = load_quantized(tmp_path / "q.safetensors", into=Net())
    assert torch.equal(copy.deepcopy(loaded)(images), logits)
    again = load_quantized(tmp_path / "q.safetensors", into=Net())
    again.load_state_dict(pickle.loads(pickle.dumps(loaded.state_dict())))
    assert torch.equal(again(images), logits)


def test_arguments_that_a_file_cannot_keep_are_refused_when_they_are_given():
    with pytest.raises(ValueError, match=r"arguments of nets:make: .*not JSON serializable; expected numbers, texts"):
        Architecture("factory", "nets:make", {"act": nn.ReLU})
    assert Architecture("factory", "nets:make", {"size": (1, 2)}).args == {"size": [1, 2]}
