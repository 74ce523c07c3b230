"""The embedded Vision Transformer: shipped, trained, without BatchNorm, and quantized like any other network."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.optim import SGD, AdamW

from zerosum.players import (
    Bits,
    accuracy,
    batchnorm_layers,
    calibrate,
    input_space,
    layer_bits,
    load_backbone,
    load_data,
    predict,
    quantize,
)
from zerosum.players.small_transformers import DIGITS_WEIGHTS
from zerosum.recipes.digits_teacher import TRAININGS
from zerosum.runs.run import main


@pytest.fixture(scope="module")
def network():
    return load_backbone("digits_vit")


def test_it_is_shipped_and_scores_on_digits_it_never_saw(network):
    assert DIGITS_WEIGHTS.stat().st_size < 1e6
    ranked, labels = predict(network, load_data("digits", network), torch.device("cpu"))
    assert len(labels) == 540
    assert accuracy(ranked, labels)["top1"] > 96


def test_it_takes_digits_as_16_patches_and_has_no_batchnorm(network):
    assert input_space(network) == (1, (8, 8), (0.306,), (0.376,))
    assert network.patch_embed.num_patches == 16
    assert not network.training
    assert not batchnorm_layers(network)
    assert load_backbone("digits_vit", "random", num_classes=7)(torch.randn(2, 1, 8, 8)).shape == (2, 7)


def test_every_product_with_weights_is_quantized(network):
    quantized = quantize(network, Bits(8, 8))
    images = torch.randn(16, 1, 8, 8)
    calibrate(quantized, [images])
    layers = {f"blocks.{i}.{layer}" for i in range(3) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert layers | {"patch_embed.proj", "head"} <= set(layer_bits(quantized))
    with torch.no_grad():
        exact = network(images)
        assert (quantized(images) - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize(("name", "optimizer"), [("digits_resnet8", SGD), ("digits_vit", AdamW)])
def test_the_recipe_trains_either_embedded_network(name, optimizer, tmp_path):
    options = ["--network", name, "--rounds", "3", "--batch-size", "4", "--device", "cpu"]
    assert main(["digits_teacher", *options, "--out", str(tmp_path / "run")]) == 0
    trained = load_file(tmp_path / "run" / "network.safetensors")
    fresh = timm.create_model(name)
    assert {key: value.shape for key, value in trained.items()} == {k: v.shape for k, v in fresh.state_dict().items()}
    assert type(TRAININGS[name].optimizer(fresh.parameters(), 0.1)) is optimizer
    load_backbone(name, tmp_path / "run" / "network.safetensors")


def test_another_network_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["digits_teacher", "--network", "resnet18", "--out", str(tmp_path / "run")])
    assert "digits_vit" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
