"""Additions and averages that take rounded values."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zerosum.players import Bits, InputSpace, Scheme, calibrate, input_space, layer_bits, load_backbone, quantize
from zerosum.players.quantization.packing import load_packed, packed_state
from zerosum.players.quantization.sums import quantize_sums

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


@pytest.mark.parametrize("name", ["test_vit", "cifar_resnet20"])
def test_one_image_and_six_agree(name):
    """Of one image, a position embedding has the shape of what it is added to."""
    network = load_backbone(name, "random")
    space = input_space(network)
    images = torch.randn(6, space.channels, *space.size)
    quantized = quantize(network, Bits(8, 8), SCHEME)
    calibrate(quantized, [images])
    with torch.no_grad():
        together, alone = quantized(images), torch.cat([quantized(image[None]) for image in images])
    assert (together - alone).norm() < 1e-2 * together.norm()  # ties between levels may fall otherwise


def test_threads_agree():
    network, images = load_backbone("digits_resnet8", "random"), torch.randn(4, 1, 8, 8)
    quantized = quantize(network, Bits(8, 8), SCHEME)
    calibrate(quantized, [images])
    expected = quantized(images)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: quantized(images), range(40)):
            torch.testing.assert_close(found, expected)


def test_a_network_in_training_mode_counts_its_batches_beside():
    network = load_backbone("digits_resnet8", "random")
    quantized = quantize(network.train(), Bits(8, 8), SCHEME)
    assert all(module.training for module in network.modules())
    assert quantized.bn1.num_batches_tracked == 0  # finding the sums is no training
    quantized(torch.randn(4, 1, 8, 8)).sum().backward()
    assert quantized.bn1.num_batches_tracked == 1


class Sums(nn.Module):
    """A layer, and what ``combine`` makes of its input and output."""

    def __init__(self, combine):
        super().__init__()
        self.layer, self.combine = nn.Conv2d(2, 2, 1), combine

    def forward(self, x):
        return self.combine(x, self.layer(x))


SPACE = InputSpace(2, (4, 4), (0.0, 0.0), (1.0, 1.0))


def added_in_place(x, y):
    x = x * 1
    same = x
    x += y
    return same


@pytest.mark.parametrize(
    ("combine", "count"),
    [
        (lambda x, y: torch.add(input=x, other=y), 2),
        (lambda x, y: torch.add(x, other=y, alpha=2), 2),
        (lambda x, y: x.add(other=y), 2),
        (lambda x, y: torch.add(torch.add(x, y), y), 4),
        (lambda x, y: added_in_place(y, x), 2),
        (added_in_place, 2),
        (lambda x, y: y.mean(dim=(2, 3)), 1),
        (lambda x, y: torch.mean(input=y, dim=(2, 3)), 1),
        (lambda x, y: F.avg_pool2d(input=y, kernel_size=2), 1),
    ],
)
def test_sums_however_they_are_written(combine, count):
    network, images = Sums(combine), torch.randn(8, 2, 4, 4)
    quantized = quantize(network, Bits(32, 32), SCHEME, SPACE)
    assert len(quantized.sum_quantizers) == count
    calibrate(quantized, [images])
    with torch.no_grad():
        found, expected = quantized(images), network(images)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < 0.02 * expected.norm()
    quantized(images).sum().backward()
    assert quantized.layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("combine", "difference"),
    [
        (lambda x, y: x + y + y if x.mean(dim=1).sum() > 0 else x + y, "number 3 is now an addition"),
        (lambda x, y: x + y + y if x.mean(dim=1).sum() == 0 else x + y, "now there are 2"),
        (lambda x, y: x + y if x.amax() == 0 else y.mean(dim=(2, 3)), "number 1 is now an average"),
    ],
)
def test_other_sums_than_were_found_are_said(combine, difference):
    quantized = quantize(Sums(combine), Bits(8, 8), SCHEME, SPACE)
    with pytest.raises(RuntimeError, match=f"quantized sums: .* {difference}"):
        quantized(torch.rand(2, 2, 4, 4))
    assert quantized(torch.zeros(2, 2, 4, 4)) is not None


def test_a_network_that_does_not_say_what_it_takes_is_refused():
    with pytest.raises(ValueError, match="Sums does not say what input it takes"):
        quantize(Sums(torch.add), Bits(8, 8), SCHEME)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_sums_in_another_precision(dtype):
    network, images = load_backbone("digits_resnet8", "random"), torch.randn(4, 1, 8, 8)
    if dtype == torch.float64:
        network, images = network.double(), images.double()
    quantized = quantize(network, Bits(8, 8), SCHEME)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        calibrate(quantized, [images])
        assert quantized(images).isfinite().all()
