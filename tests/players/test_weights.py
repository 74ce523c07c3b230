"""Checkpoints as they are found: in mappings, in wrappers, of several networks, of other shapes."""

import argparse
import os
import warnings

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from zerosum.players import load_backbone

NAME = "cifar_resnet20"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return load_backbone(NAME, "random")


def prefixed(state, *prefixes):
    return {"".join(prefixes) + name: tensor for name, tensor in state.items()}


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def load(path, content, **options):
    torch.save(content, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_backbone(NAME, path, **options)


def same(loaded, network):
    return all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_path_may_be_no_utf_8(tmp_path, network, suffix):
    path = tmp_path / os.fsdecode(b"\xff" + suffix.encode())
    torch.save(network.state_dict(), written := tmp_path / "written.pth")
    if suffix == ".safetensors":
        save_file(network.state_dict(), written := tmp_path / "written.safetensors")
    written.rename(path)
    assert same(load_backbone(NAME, path), network)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "network", "weights", "ema", "any"])
def test_state_dicts_under_the_usual_keys_and_alone_under_any(network, tmp_path, key):
    args, optimizer = argparse.Namespace(lr=0.1), {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}
    content = {"epoch": 3, "args": args, key: network.state_dict(), "optimizer": optimizer, "best": 0.5}
    assert same(load(tmp_path / "w.pt", content), network)


@pytest.mark.parametrize(
    "prefixes", [("module.",), ("model.",), ("_orig_mod.",), ("_orig_mod.module.",), ("net.", "module."), ("a.", "b.")]
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_prefixes_of_wrappers_are_dropped(network, tmp_path, prefixes, suffix):
    state, path = prefixed(network.state_dict(), *prefixes), tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
        assert same(load_backbone(NAME, path), network)
    else:
        assert same(load(path, {"state_dict": state, "pytorch-lightning_version": "2.4"}), network)


def test_an_averaged_model_and_counters_of_operations(network, tmp_path):
    assert same(load(tmp_path / "w.pth", AveragedModel(network).state_dict()), network)
    state = network.state_dict()
    counters = {name.rpartition(".")[0] + ".total_ops": torch.zeros(1) for name in state}
    assert same(load(tmp_path / "w.pth", state | counters | {"total_params": torch.zeros(1)}), network)


def test_of_plain_and_averaged_weights_the_plain_ones_are_taken_and_it_says_so(network, tmp_path):
    state, path = network.state_dict(), tmp_path / "w.pth"
    torch.save({"state_dict_ema": zeros(state), "state_dict": state}, path)
    with pytest.warns(UserWarning, match=r"left out state_dict_ema \(--weights-key state_dict_ema takes it\)") as said:
        assert same(load_backbone(NAME, path), network)
    assert said[0].filename == __file__
    averaged = load(
        path, {"state_dict_ema": prefixed(state, "module."), "model": zeros(state)}, weights_key="state_dict_ema"
    )
    assert same(averaged, network)
    assert same(load(path, {"state_dict_ema": zeros(state), "model": state}, weights_key="model"), network)


def test_of_several_networks_one_is_taken_by_its_prefix(network, tmp_path):
    state, path = network.state_dict(), tmp_path / "w.ckpt"
    both = prefixed(state, "student.") | prefixed(zeros(state), "teacher.")
    with pytest.raises(ValueError, match=r"several networks \(student, teacher\); --weights-key takes one"):
        load(path, {"state_dict": both})
    assert same(load(path, {"state_dict": both}, weights_key="student"), network)
    torch.save({"state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(3)}}, path)
    with pytest.warns(UserWarning, match="left out criterion.weight"):
        assert same(load_backbone(NAME, path), network)


def test_what_is_found_and_what_was_expected_are_listed(network, tmp_path):
    state, path = network.state_dict(), tmp_path / "w.pth"
    with pytest.raises(ValueError, match=r"state dict of tensors.*; keys found: a, b; --weights-key takes one of a, b"):
        load(path, {"a": state, "b": state})
    with pytest.raises(ValueError, match=r"alone or as state_dict; keys found: epoch, best"):
        load(path, {"epoch": 3, "best": 0.5})
    with pytest.raises(ValueError, match=r"nothing there is called ema \(--weights-key\); found: model, state_dict"):
        load(path, {"model": state, "state_dict": state}, weights_key="ema")
    with pytest.raises(ValueError, match=r"nothing there is called ema .*; found: conv1, bn1, layer1, … \(6 in all\)"):
        load(path, state, weights_key="ema")
    with pytest.raises(ValueError, match=r"found stem.weight, fc.weight; expected conv1.weight, bn1.weight, .* in all"):
        load(path, {"stem.weight": torch.zeros(1), "fc.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"state dict of tensors.*; found another object"):
        load(path, [1, 2])


@pytest.mark.parametrize("name", ["cifar_resnet20", "test_vit", "test_efficientnet", "test_convnext"])
def test_shapes_that_tell_name_the_option(name, tmp_path):
    trained = timm.create_model(name, num_classes=5, in_chans=1)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    _, height, width = trained.pretrained_cfg["input_size"]
    with pytest.raises(ValueError, match=rf"; try --num-classes 5 --input-size 1 {height} {width}$"):
        load_backbone(name, tmp_path / "w.pth")
    options = {"num_classes": 5, "input_size": (1, height, width), "mean": (0.5,), "std": (0.5,)}
    assert same(load_backbone(name, tmp_path / "w.pth", **options), trained)


def test_a_position_embedding_tells_the_size(tmp_path):
    trained = timm.create_model("test_vit", img_size=64)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"pos_embed has shape .*; try --input-size 3 64 64$"):
        load_backbone("test_vit", tmp_path / "w.pth")
    assert same(load_backbone("test_vit", tmp_path / "w.pth", input_size=(3, 64, 64)), trained)


def test_no_option_is_named_where_none_helps(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not of test_vit: ") as refused:
        load_backbone("test_vit", tmp_path / "w.pth")
    assert "try" not in str(refused.value)
