"""Additions and averages that take rounded values."""

import copy

import pytest
import torch
from torch import nn

from players import Bits, Scheme, calibrate, layer_bits, load_backbone, quantize
from players.quantization.packing import load_packed, packed_state
from players.quantization.sums import quantize_sums

SCHEME = Scheme(sums="quantized")


class Residual(nn.Module):
    """A residual sum, a sum with a parameter, one with a number, and an average."""

    default_cfg = {"input_size": (2, 4, 4)}  # noqa: RUF012
    pretrained_cfg = default_cfg

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)
        self.position = nn.Parameter(torch.randn(1, 2, 4, 4))

    def forward(self, x):
        x = x + self.position + 1
        x += self.layer(x)
        return nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)


def test_what_is_added_is_on_a_grid():
    network, images = Residual(), torch.randn(8, 2, 4, 4)
    quantized = quantize(network, Bits(32, 32), SCHEME)
    assert len(quantized.sum_quantizers) == 3  # both sides of the one addition of activations; what is averaged
    torch.testing.assert_close(quantized(images), network(images))  # nothing observed yet
    calibrate(quantized, [images])
    left, right, averaged = (quantizer.grid().round for quantizer in quantized.sum_quantizers)
    x = images + network.position + 1
    expected = averaged(left(x) + right(network.layer(x))).mean((2, 3))
    torch.testing.assert_close(quantized(images), expected)
    assert not torch.equal(expected, network(images))


def test_a_gradient_passes():
    quantized, images = quantize(Residual(), Bits(8, 8), SCHEME), torch.randn(8, 2, 4, 4)
    calibrate(quantized, [images])
    quantized(images).sum().backward()
    assert quantized.position.grad.abs().min() > 0


@pytest.mark.parametrize("range", ["ema", "percentile", "lsq"])
def test_sums_inside_the_quantizers_are_none_of_the_network(range):
    scheme = Scheme("lsq", activation_range=range, sums="quantized")
    network, images = load_backbone("digits_resnet8", "random"), torch.randn(4, 1, 8, 8)
    quantized = quantize(network, Bits(4, 8), scheme)
    assert len(quantized.sum_quantizers) == 7
    calibrate(quantized, [images])
    assert all(quantizer.observed == 1 for quantizer in quantized.sum_quantizers)
    quantized(images).sum().backward()


def test_one_tensor_that_is_rounded_twice_is_rounded_alike():
    """A residual stream enters a layer and an addition: there ONNX has one QuantizeLinear for both."""
    network, images = load_backbone("digits_resnet8", "random"), torch.randn(4, 1, 8, 8)
    quantized = quantize(network, Bits(8, 8), SCHEME)
    calibrate(quantized, [images])
    grids = [quantizer.grid() for quantizer in quantized.sum_quantizers]
    layer = quantized.layer1[0].conv1.input_quantizer.grid()
    assert any(torch.equal(layer.scale, grid.scale) for grid in grids)


def test_copies_and_saved_states_are_the_same_network():
    network, images = load_backbone("digits_resnet8", "random"), torch.randn(4, 1, 8, 8)
    quantized = quantize(network, Bits(4, 8), SCHEME)
    calibrate(quantized, [images])
    assert torch.equal(copy.deepcopy(quantized)(images), quantized(images))
    assert torch.equal(
        load_packed(network, packed_state(quantized), layer_bits(quantized), SCHEME)(images), quantized(images)
    )


def test_an_error_on_the_way_leaves_other_networks_alone():
    network = Residual()
    quantize_sums(network, SCHEME)
    with pytest.raises(RuntimeError):
        network(torch.randn(8, 3, 4, 4))
    x = torch.randn(2, 2)
    assert torch.equal(x + x, 2 * x)
    assert network(torch.randn(8, 2, 4, 4)).shape == (8, 2)
