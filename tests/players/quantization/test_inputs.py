"""What enters a layer: however it is handed over, and whatever was observed of it."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import CondConv2d, Conv2dSame
from torch import nn

from tests.strategies import normal, seeds
from zerosum.players import Bits, Scheme, calibrate, layer_bits, quantize
from zerosum.players.quantization.packing import load_packed, packed_state
from zerosum.players.quantization.quantizers import ActivationQuantizer


def small_network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))


@given(seeds, st.integers(1, 12))
def test_the_range_is_a_corrected_moving_average(seed, batches):
    """No batch counts for more than its share: constant batches give their own range after any number of them."""
    quantizer = ActivationQuantizer(4)
    quantizer.observing = True
    x = normal(seed, batches, 50, dtype=torch.float32)
    for batch in x:
        quantizer(batch)
    share = torch.tensor([0.9 ** (batches - 1 - i) for i in range(batches)])
    torch.testing.assert_close(quantizer.low, (share * x.amin(1)).sum(0, keepdim=True) / share.sum())
    torch.testing.assert_close(quantizer.high, (share * x.amax(1)).sum(0, keepdim=True) / share.sum())


def test_ranges_are_kept_after_calibration_and_observed_afresh_in_the_next():
    quantized = quantize(small_network(), Bits(4, 4))
    calibrate(quantized, [torch.randn(4, 1, 4, 4)])
    high = quantized[3].input_quantizer.high.clone()
    quantized(100 * torch.randn(4, 1, 4, 4))
    assert torch.equal(quantized[3].input_quantizer.high, high)
    calibrate(quantized, [torch.zeros(4, 1, 4, 4)])
    assert quantized[0].input_quantizer.high == 0


def test_before_calibration_activations_pass_unchanged():
    network, images = small_network(), torch.randn(2, 1, 4, 4)
    quantized = quantize(network, Bits(32, 4))
    assert torch.equal(quantized(images), network(images))
    quantized.load_state_dict(quantize(network, Bits(32, 4)).state_dict())
    assert torch.equal(quantized(images), network(images))


@given(seeds, st.integers(1, 8))
def test_minmax_of_activations_is_that_of_all_batches(seed, batches):
    quantizer = ActivationQuantizer(4, "minmax")
    quantizer.observing = True
    x = normal(seed, batches, 50, dtype=torch.float32)
    for batch in x:
        quantizer(batch)
    assert (quantizer.low.item(), quantizer.high.item()) == (x.min().item(), x.max().item())


class Branches(nn.Module):
    """A layer that sees zeros alone, and one that is not reached."""

    def __init__(self):
        super().__init__()
        self.first, self.dead, self.unreached = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

    def forward(self, x, everything=False):
        x = self.first(x) + self.dead(x * 0 + 0.3 * everything)
        return self.unreached(x[:, :1]) if everything else x


@pytest.mark.parametrize("range", ["minmax", "ema", "percentile", "mse", "lsq"])
def test_what_was_observed_is_known_after_loading_where_it_was_zero_too(range):
    network, images, scheme = Branches(), torch.randn(4, 1, 3, 3), Scheme(activation_range=range)
    quantized = quantize(network, Bits(4, 4), scheme)
    with torch.no_grad():
        quantized(images, everything=True)
        calibrate(quantized, [torch.ones(4, 1, 3, 3)])
        calibrate(quantized, [images, images])
    loaded = quantize(network, Bits(4, 4), scheme)
    loaded.load_state_dict(quantized.state_dict())
    copies = [
        *(loaded, copy.deepcopy(quantized), copy.deepcopy(loaded)),
        load_packed(network, packed_state(quantized), layer_bits(quantized), scheme),
    ]
    for again in copies:
        assert [
            bool(again.get_submodule(name).input_quantizer.observed) for name in ("first", "dead", "unreached")
        ] == [*(True, True, False)]
        for everything in (False, True):
            assert torch.equal(again(images, everything), quantized(images, everything))


def test_forgotten_ranges_are_not_in_the_state():
    quantized = quantize(Branches(), Bits(4, 4))
    with torch.no_grad():
        calibrate(quantized, [torch.randn(4, 1, 3, 3)])
    calibrate(quantized, [])
    again = quantize(Branches(), Bits(4, 4))
    again.load_state_dict(quantized.state_dict())
    assert not any(m.observed for m in again.modules() if isinstance(m, ActivationQuantizer))


class Calls(nn.Module):
    def __init__(self, layer, call):
        super().__init__()
        self.first, self.layer, self.call = nn.Conv2d(2, 4, 1), layer, call

    def forward(self, x):
        return self.call(self.layer, self.first(input=x))


@pytest.mark.parametrize(
    ("layer", "by_position", "by_keyword"),
    [
        (nn.Conv2d(4, 3, 2), lambda f, x: f(x), lambda f, x: f(input=x)),
        (nn.Linear(5, 3), lambda f, x: f(x), lambda f, x: f(input=x)),
        (Conv2dSame(4, 3, 2), lambda f, x: f(x), lambda f, x: f(x=x)),
        (nn.ConvTranspose2d(4, 3, 2, stride=2), lambda f, x: f(x, [11, 11]), lambda f, x: f(x, output_size=[11, 11])),
        (nn.ConvTranspose2d(4, 3, 2, stride=2), lambda f, x: f(x), lambda f, x: f(output_size=[10, 10], input=x)),
        (
            CondConv2d(4, 3, 2, num_experts=2),
            lambda f, x: f(x, torch.ones(6, 2)),
            lambda f, x: f(routing_weights=torch.ones(6, 2), x=x),
        ),
    ],
)
def test_layers_called_by_keyword(layer, by_position, by_keyword):
    images, outputs = torch.randn(6, 2, 5, 5), []
    network = Calls(layer, by_position)
    for call in (by_position, by_keyword):
        network.call = call
        quantized = quantize(network, Bits(4, 4))
        calibrate(quantized, [images])
        assert quantized.layer.input_quantizer.observed == 1
        outputs.append(quantized(x=images))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], network(images))


def test_a_layer_called_without_input_says_what_torch_says():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'input'"):
        quantize(nn.Sequential(nn.Conv2d(1, 2, 1)), Bits(4, 4))[0]()
