"""A rounding is a part: another one is a class, and a line in the table."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import Adam

from zerosum.players import (
    Architecture,
    Bits,
    Scheme,
    calibrate,
    input_space,
    layer_bits,
    load_backbone,
    load_quantized,
    quantize,
    save_quantized,
)
from zerosum.players.quantization import quantizable_layers
from zerosum.players.quantization.layers import weight_quantizer
from zerosum.players.quantization.packing import load_packed, packed_state
from zerosum.players.quantization.ranges import WAYS, Range, minmax, mse
from zerosum.players.quantization.rounding import LearnedScale, Nearest

SCHEMES = [Scheme("adaround"), Scheme("adaround", "symmetric", "per-tensor"), Scheme("adaround", sums="quantized")]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_learned_rounding_is_trained_rounded_saved_and_loaded(tmp_path, scheme):
    network, images = load_backbone("digits_resnet8"), torch.randn(32, 1, 8, 8)
    expected = network(images).detach()
    quantized, nearest = (quantize(network, Bits(2, 8), how) for how in (scheme, replace(scheme, weight_range="mse")))
    for rounded in (quantized, nearest):
        calibrate(rounded, [images])

    def error(rounded):
        return (rounded(images) - expected).square().mean()

    rounders = [weight_quantizer(layer) for layer in quantizable_layers(quantized).values()]
    for rounder in rounders:
        rounder.rounding.learning(rounder, True)
    learned = [p for name, p in quantized.named_parameters() if name.endswith("upwards")]
    assert len(learned) == len(quantizable_layers(quantized))
    optimizer = Adam(learned, 0.05)
    for step in range(60):
        undecided = sum(rounder.rounding.undecided(rounder, 8 if step < 30 else 2) for rounder in rounders)
        optimizer.zero_grad()
        (error(quantized) + 0.02 * (step > 20) * undecided).backward()
        optimizer.step()
    for rounder in rounders:
        rounder.rounding.learning(rounder, False)
    with torch.no_grad():
        assert error(quantized) < 0.7 * error(nearest)
        for layer in quantizable_layers(quantized).values():
            assert len(layer.weight.unique()) <= 4 * (
                len(layer.weight) if scheme.weight_granularity != "per-tensor" else 1
            )
        assert torch.equal(copy.deepcopy(quantized)(images), quantized(images))
        again = quantize(network, Bits(2, 8), scheme)
        again.load_state_dict(quantized.state_dict())
        assert torch.equal(again(images), quantized(images))
        loaded = load_packed(network, packed_state(quantized), layer_bits(quantized), scheme)
        assert torch.equal(loaded(images), quantized(images))
        architecture = Architecture("timm", "digits_resnet8")
        save_quantized(tmp_path / "q.safetensors", quantized, architecture, input_space(network), scheme)
        assert torch.equal(load_quantized(tmp_path / "q.safetensors")(images), quantized(images))


@pytest.mark.parametrize("find", [minmax, mse])
@pytest.mark.parametrize("rounding", [Nearest, LearnedScale])
def test_any_range_goes_with_any_rounding(monkeypatch, find, rounding):
    monkeypatch.setitem(WAYS, "composed", (partial(Range, find, follows=find is minmax), rounding))
    network, images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), torch.randn(8, 1, 8, 8)
    quantized = quantize(network, Bits(4, 4), Scheme("composed", activation_range="composed"))
    calibrate(quantized, [images, images])
    output = quantized(images)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantized.parameters())
    assert (output - network(images)).norm() < 0.5 * network(images).norm()
    again = quantize(network, Bits(4, 4), Scheme("composed", activation_range="composed"))
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(images), output)
