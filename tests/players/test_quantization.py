import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from players import Bits, calibrate, fake_quantize, quantize
from players.quantization import ActivationQuantizer
from tests.strategies import bit_widths, normal, seeds

spans = st.floats(1e-3, 1e3)


def values_and_range(seed, low, span):
    """Values inside [low, low + span] and beyond on both sides, and the range."""
    x = low + span * (torch.rand(200, generator=torch.Generator().manual_seed(seed)) * 1.5 - 0.25)
    return x, torch.tensor(low), torch.tensor(low + span)


ranged = given(seeds, st.floats(-100, 100), spans, bit_widths)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_published_values(shared, bits):
    fixture = load_file(shared("fixtures/adasg_reference.safetensors"))
    reference = {k.split(".")[2]: v for k, v in fixture.items() if k.startswith(f"quantizer.w{bits}.")}
    low, high = reference["weight"].flatten(1).aminmax(dim=1)
    weight = fake_quantize(reference["weight"], low, high, bits, channel_axis=0)
    torch.testing.assert_close(weight, reference["weight_quantized"], rtol=1e-5, atol=1e-6)
    activation = fake_quantize(reference["activation"], reference["activation_low"], reference["activation_high"], bits)
    torch.testing.assert_close(activation, reference["activation_quantized"], rtol=1e-5, atol=1e-6)


def test_values_by_hand():
    # [-1, 2] in 2 bits: levels -1, 0, 1, 2.
    x = torch.tensor([-3.0, -0.6, 0.4, 0.6, 1.4, 9.0])
    found = fake_quantize(x, torch.tensor(-1.0), torch.tensor(2.0), 2)
    assert found.tolist() == [-1, -1, 0, 1, 1, 2]


@ranged
def test_few_levels_half_a_step_idempotent_monotone(seed, low, span, bits):
    x, lowest, highest = values_and_range(seed, low, span)
    x = x.sort().values
    found = fake_quantize(x, lowest, highest, bits)
    step = (max(low + span, 0) - min(low, 0)) / (2**bits - 1)
    slack = 1e-4 * step + 1e-5 * (abs(low) + span)
    assert len(found.unique()) <= 2**bits
    assert (found.diff() >= 0).all()
    torch.testing.assert_close(fake_quantize(found, lowest, highest, bits), found)
    # The zero point is rounded, so the grid may end half a step inside the range.
    inside = (x >= min(low, 0) + step / 2) & (x <= max(low + span, 0) - step / 2)
    assert (found - x).abs()[inside].max().nan_to_num() <= step / 2 + slack if inside.any() else True
    assert fake_quantize(torch.zeros(1), lowest, highest, bits).item() == 0


@ranged
def test_per_channel_is_per_tensor_channel_by_channel(seed, low, span, bits):
    x = normal(seed, 3, 4, 5, dtype=torch.float32) * span + low
    lows, highs = x.transpose(0, 1).flatten(1).aminmax(dim=1)
    together = fake_quantize(x, lows, highs, bits, channel_axis=1)
    for channel in range(4):
        alone = fake_quantize(x[:, channel], lows[channel], highs[channel], bits)
        assert torch.equal(together[:, channel], alone)


@ranged
def test_the_gradient_is_straight_through_inside_and_nothing_outside(seed, low, span, bits):
    x, lowest, highest = values_and_range(seed, low, span)
    step = (max(low + span, 0) - min(low, 0)) / (2**bits - 1)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(fake_quantize(x, lowest, highest, bits).sum(), x)
    inside = (x > min(low, 0) + step / 2) & (x < max(low + span, 0) - step / 2)
    outside = (x < min(low, 0) - step) | (x > max(low + span, 0) + step)
    assert (gradient[inside] == 1).all()
    assert (gradient[outside] == 0).all()


def test_a_range_without_extent_gives_zeros_exactly():
    zero = torch.zeros(())
    assert fake_quantize(torch.zeros(4), zero, zero, 4).tolist() == [0] * 4


@given(st.integers(2, 8) | st.just(32), st.integers(2, 8) | st.just(32))
def test_bits_are_read(weight, activation):
    assert Bits.parse(f"w{weight}a{activation}") == (weight, activation)
    assert Bits.parse(f" W{weight}A{activation} ") == (weight, activation)


@pytest.mark.parametrize("text", ["w0a4", "w4", "foo", "", "w4a1", "w9a4", "w4a16", "4w4a", "w4a4x", "w-4a4", "w4.5a4"])
def test_bad_bits_are_named(text):
    with pytest.raises(ValueError, match="bits"):
        Bits.parse(text)


def small_network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)
    ).eval()


def test_a_quantized_network_computes_with_rounded_weights_and_inputs():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    quantized = quantize(network, 3, 4)
    calibrate(quantized, [images])
    conv, _, _, _, linear = quantized
    for layer, bits in ((conv, 3), (linear, 3)):
        for channel in layer.weight:
            assert len(channel.unique()) <= 2**bits
    seen = {}
    for layer in (conv, linear):
        layer.register_forward_hook(lambda layer, args, out: seen.update({layer: args[0]}))
    out = quantized(images)
    assert len(seen[conv].unique()) <= 2**8  # the network's own input keeps 8 bits
    assert 2**4 >= len(seen[linear].unique()) > 2**3
    torch.testing.assert_close(out, nn.functional.linear(seen[linear], linear.weight, linear.bias))
    assert not torch.equal(out, network(images))


def test_the_original_is_left_alone_and_32_bits_change_nothing():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    before = copy.deepcopy(network.state_dict())
    quantized = quantize(network, 2, 2)
    calibrate(quantized, [images])
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(quantize(network, 32, 32)(images), network(images))
    weights_only, activations_only = quantize(network, 2, 32), quantize(network, 32, 2)
    calibrate(activations_only, [images])
    assert not torch.equal(weights_only(images), network(images))
    assert torch.equal(weights_only[0].parametrizations.weight.original, network[0].weight)
    assert torch.equal(activations_only[4].weight, network[4].weight)
    assert not torch.equal(activations_only(images), network(images))


def test_quantizers_are_where_their_layers_are():
    quantized = quantize(small_network().to("meta"), 32, 4)
    assert {tensor.device.type for tensor in quantized.state_dict().values()} == {"meta"}


def test_gradients_reach_every_weight():
    quantized = quantize(small_network(), 4, 4)
    images = torch.randn(8, 1, 4, 4)
    calibrate(quantized, [images])
    quantized(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantized.parameters())


def test_state_dict_and_deepcopy_round_trip():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    quantized = quantize(network, 3, 3)
    calibrate(quantized, [images])
    again = quantize(small_network(), 3, 3)
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(images), quantized(images))
    assert torch.equal(copy.deepcopy(quantized)(images), quantized(images))


@given(seeds, st.integers(1, 12))
def test_the_range_is_a_corrected_moving_average(seed, batches):
    """No batch counts for more than its share: constant batches give their own range after any number of them."""
    quantizer = ActivationQuantizer(4)
    quantizer.observing = True
    x = normal(seed, batches, 50, dtype=torch.float32)
    for batch in x:
        quantizer(batch)
    share = torch.tensor([0.9 ** (batches - 1 - i) for i in range(batches)])
    torch.testing.assert_close(quantizer.low, (share * x.amin(1)).sum() / share.sum())
    torch.testing.assert_close(quantizer.high, (share * x.amax(1)).sum() / share.sum())


def test_ranges_are_kept_after_calibration_and_observed_afresh_in_the_next():
    quantized = quantize(small_network(), 4, 4)
    calibrate(quantized, [torch.randn(4, 1, 4, 4)])
    high = quantized[4].input_quantizer.high.clone()
    quantized(100 * torch.randn(4, 1, 4, 4))
    assert torch.equal(quantized[4].input_quantizer.high, high)
    calibrate(quantized, [torch.zeros(4, 1, 4, 4)])
    assert quantized[0].input_quantizer.high == 0


def test_before_calibration_activations_pass_unchanged():
    network, images = small_network(), torch.randn(2, 1, 4, 4)
    quantized = quantize(network, 32, 4)
    assert torch.equal(quantized(images), network(images))
    quantized.load_state_dict(quantize(network, 32, 4).state_dict())
    assert torch.equal(quantized(images), network(images))


def test_nothing_to_quantize_and_bad_widths_are_refused():
    with pytest.raises(ValueError, match="no Conv and no Linear layer"):
        quantize(nn.Sequential(nn.ReLU()), 4, 4)
    with pytest.raises(ValueError, match="weight bits: 1"):
        quantize(small_network(), 1, 4)
    with pytest.raises(ValueError, match="expected 2 to 8"):
        fake_quantize(torch.zeros(1), torch.zeros(()), torch.ones(()), 9)
    assert math.isfinite(quantize(small_network(), 2, 2)(torch.zeros(1, 1, 4, 4)).sum().item())


@pytest.mark.parametrize(
    ("layer", "shape", "channel_axis"),
    [
        (nn.Conv1d(4, 6, 3), (2, 4, 9), 0),
        (nn.Conv3d(4, 6, 2), (2, 4, 3, 3, 3), 0),
        (nn.ConvTranspose1d(4, 6, 3), (2, 4, 9), 1),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 5, 5), 1),
    ],
)
def test_every_kind_of_convolution_by_its_output_channels(layer, shape, channel_axis):
    network = nn.Sequential(nn.Conv2d(1, 1, 1), layer)  # the first layer is the network's input's
    quantized = quantize(network, 3, 8)[1]
    for channel in range(6):
        weight = layer.weight.select(channel_axis, channel)
        found = quantized.weight.select(channel_axis, channel)
        torch.testing.assert_close(found, fake_quantize(weight, weight.min(), weight.max(), 3), check_dtype=True)
        assert len(found.unique()) <= 8
    assert quantized(torch.randn(shape)).shape == layer(torch.randn(shape)).shape


class Taking(nn.Module):
    """Takes a layer's weight and computes with it, as fused attention does."""

    def __init__(self, by_keyword):
        super().__init__()
        self.first, self.layer, self.by_keyword = nn.Linear(4, 4), nn.Linear(4, 3), by_keyword

    def forward(self, x):
        x = self.first(x)
        if self.by_keyword:
            return F.linear(input=x, weight=self.layer.weight, bias=self.layer.bias)
        return F.linear(x, self.layer.weight, self.layer.bias)


@pytest.mark.parametrize("by_keyword", [True, False])
@pytest.mark.parametrize("bits", [(4, 4), (32, 4), (4, 32)])
def test_a_weight_that_another_module_takes_brings_the_quantizer_of_its_input(by_keyword, bits):
    network, x = Taking(by_keyword), torch.randn(16, 4)
    plain = nn.Sequential(network.first, network.layer)
    found, expected = quantize(network, *bits), quantize(plain, *bits)
    calibrate(found, [x])
    calibrate(expected, [x])
    output = found(x)
    assert type(output) is torch.Tensor
    torch.testing.assert_close(output, expected(x), rtol=0, atol=0)
    output.sum().backward()
    assert all(p.grad is not None for p in found.parameters())
    torch.testing.assert_close(copy.deepcopy(found)(x), output)


def test_looking_at_a_weight_quantizes_nothing():
    quantized = quantize(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), 4, 4)
    calibrate(quantized, [torch.randn(8, 3)])
    layer = quantized[1]
    assert layer.weight.shape == (2, 3)
    assert type(layer.weight.sum()) is torch.Tensor
    assert layer.input_quantizer.observed == 1
