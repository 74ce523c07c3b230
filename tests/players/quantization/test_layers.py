import copy
import math

import pytest
import torch
from hypothesis import given
from timm.layers import CondConv2d
from torch import nn
from torch.nn import functional as F

from tests.strategies import bit_widths
from zerosum.players import Bits, Scheme, assign_bits, calibrate, fake_quantize, layer_bits, quantize
from zerosum.players.quantization.layers import float_weight
from zerosum.players.quantization.packing import load_packed, packed_state


def small_network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)
    ).eval()


def test_a_quantized_network_computes_with_rounded_weights_and_inputs():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    quantized = quantize(network, Bits(3, 4))
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
    quantized = quantize(network, Bits(2, 2))
    calibrate(quantized, [images])
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(quantize(network, Bits(32, 32))(images), network(images))
    weights_only, activations_only = quantize(network, Bits(2, 32)), quantize(network, Bits(32, 2))
    calibrate(activations_only, [images])
    assert not torch.equal(weights_only(images), network(images))
    assert torch.equal(weights_only[0].parametrizations.weight.original, network[0].weight)
    assert torch.equal(activations_only[4].weight, network[4].weight)
    assert not torch.equal(activations_only(images), network(images))


def test_quantizers_are_where_their_layers_are():
    quantized = quantize(small_network().to("meta"), Bits(32, 4))
    assert {tensor.device.type for tensor in quantized.state_dict().values()} == {"meta"}


def test_gradients_reach_every_weight():
    quantized = quantize(small_network(), Bits(4, 4))
    images = torch.randn(8, 1, 4, 4)
    calibrate(quantized, [images])
    quantized(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantized.parameters())


def test_state_dict_and_deepcopy_round_trip():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    quantized = quantize(network, Bits(3, 3))
    calibrate(quantized, [images])
    again = quantize(small_network(), Bits(3, 3))
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(images), quantized(images))
    assert torch.equal(copy.deepcopy(quantized)(images), quantized(images))


def test_nothing_to_quantize_and_bad_widths_are_refused():
    with pytest.raises(ValueError, match="no Conv and no Linear layer"):
        quantize(nn.Sequential(nn.ReLU()), Bits(4, 4))
    with pytest.raises(ValueError, match="layer 0: of weights, 1 is neither"):
        quantize(small_network(), Bits(1, 4))
    assert math.isfinite(quantize(small_network(), Bits(2, 2))(torch.zeros(1, 1, 4, 4)).sum().item())


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
    quantized = quantize(network, Bits(3, 8), Scheme("minmax"))[1]
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
    found, expected = quantize(network, Bits(*bits)), quantize(plain, Bits(*bits))
    calibrate(found, [x])
    calibrate(expected, [x])
    output = found(x)
    assert type(output) is torch.Tensor
    torch.testing.assert_close(output, expected(x), rtol=0, atol=0)
    output.sum().backward()
    assert all(p.grad is not None for p in found.parameters())
    torch.testing.assert_close(copy.deepcopy(found)(x), output)


def test_looking_at_a_weight_quantizes_nothing():
    quantized = quantize(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), Bits(4, 4))
    calibrate(quantized, [torch.randn(8, 3)])
    layer = quantized[1]
    assert layer.weight.shape == (2, 3)
    assert type(layer.weight.sum()) is torch.Tensor
    assert layer.input_quantizer.observed == 1


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(),
        Scheme("minmax", "symmetric", "per-tensor", "minmax", "symmetric"),
        Scheme("percentile", "asymmetric", "per-channel", "percentile"),
        Scheme("mse", "symmetric", "per-channel", "mse"),
        Scheme("lsq", "symmetric", "per-tensor", "lsq"),
        Scheme("lsq", activation_range="lsq", activation_grid="symmetric"),
    ],
    ids=str,
)
def test_every_scheme_quantizes_learns_and_comes_back(scheme):
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    quantized = quantize(network, Bits(3, 4), scheme)
    calibrate(quantized, [images, 2 * images])
    output = quantized(images)
    for channel in quantized[0].weight:
        assert len(channel.unique()) <= 2**3
    if scheme.weight_granularity == "per-tensor":
        assert len(quantized[4].weight.unique()) <= 2**3
    assert (output - network(images)).norm() < 0.5 * network(images).norm()
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantized.parameters())
    again = quantize(small_network(), Bits(3, 4), scheme)
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(images), output)
    assert torch.equal(copy.deepcopy(quantized)(images), output)


def test_learned_scales_are_parameters_that_start_from_mse():
    network, images = small_network(), torch.randn(8, 1, 4, 4)
    learned = quantize(network, Bits(3, 4), Scheme("lsq", activation_range="lsq"))
    fixed = quantize(network, Bits(3, 4), Scheme("mse", activation_range="mse"))
    for quantized in (learned, fixed):
        calibrate(quantized, [images])
    torch.testing.assert_close(learned(images), fixed(images))
    scales = {name for name, _ in learned.named_parameters() if name.endswith("scale")}
    assert scales == {f"{n}.{of}.scale" for n in (0, 4) for of in ("parametrizations.weight.0", "input_quantizer")}
    with torch.no_grad():
        learned[4].input_quantizer.scale.fill_(-1)  # a step too far
    assert learned(images).isfinite().all()


def test_scales_are_learned_by_default_of_few_bits_layer_by_layer():
    quantized = quantize(small_network(), {"0": Bits(5, 4), "4": Bits(4, 5)})
    scales = {name for name, _ in quantized.named_parameters() if name.endswith("scale")}
    assert scales == {"0.input_quantizer.scale", "4.parametrizations.weight.0.scale"}


def test_minmax_follows_a_weight_that_moves_and_other_ranges_are_kept():
    for name, follows in (("minmax", True), ("percentile", False), ("mse", False)):
        layer = quantize(small_network(), Bits(4, 32), Scheme(name))[4]
        before = layer.parametrizations.weight[0].grid_of(float_weight(layer)).scale
        with torch.no_grad():
            float_weight(layer).mul_(3)
        after = layer.parametrizations.weight[0].grid_of(float_weight(layer)).scale
        torch.testing.assert_close(after, before * 3 if follows else before)


@given(bit_widths, bit_widths)
def test_layers_tell_their_bits(weight, activation):
    network = small_network()
    for bits in (Bits(weight, activation), Bits(weight, 32), Bits(32, activation), Bits(32, 32)):
        assigned = assign_bits(network, bits)
        assert layer_bits(quantize(network, assigned)) == assigned


def test_bits_by_layer_must_name_the_layers():
    with pytest.raises(ValueError, match="bits for conv; expected them for 0, 4"):
        quantize(small_network(), {"conv": Bits(4, 4)})


@pytest.mark.parametrize("granularity", ["per-channel", "per-tensor"])
def test_conditional_convolutions_by_the_output_channels_of_every_expert(granularity):
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.route, self.conv = nn.Conv2d(2, 4, 1), nn.Linear(4, 3), CondConv2d(4, 6, 3, num_experts=3)

        def forward(self, x):
            x = self.first(x)
            return self.conv(x, torch.sigmoid(self.route(x.mean(dim=(2, 3)))))

    network, images = Routed(), torch.randn(4, 2, 5, 5)
    scheme = Scheme("minmax", weight_granularity=granularity)
    quantized = quantize(network, Bits(3, 8), scheme)
    calibrate(quantized, [images])
    kernels = quantized.conv.weight.reshape(3, 6, 4 * 9)
    assert kernels.unique().numel() <= 8 if granularity == "per-tensor" else kernels.unique().numel() > 50
    for expert, plain in zip(kernels, network.conv.weight.reshape(3, 6, -1), strict=True):
        for found, channel in zip(expert, plain, strict=True):
            assert len(found.unique()) <= 8
            if granularity == "per-channel":
                torch.testing.assert_close(found, fake_quantize(channel, channel.min(), channel.max(), 3))
    output = quantized(images)
    assert (output - network(images)).norm() < 0.5 * network(images).norm()
    output.sum().backward()
    assert quantized.conv.parametrizations.weight.original.grad is not None
    assert quantized.conv.input_quantizer.observed == 1
    loaded = load_packed(Routed(), packed_state(quantized), layer_bits(quantized), scheme)
    assert torch.equal(loaded(images), output)
