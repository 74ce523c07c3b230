"""BatchNorm folded into integers: the same function, on the same grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from torch import nn

from tests.strategies import bit_widths, normal, seeds
from zerosum.players import Bits, Scheme, calibrate, load_backbone, quantize
from zerosum.players.export.program import batchnorm_after, float_twin, fold, integer_copy, integer_network, trace
from zerosum.players.quantization.integers import integers_of

factors = st.lists(st.sampled_from([1.0, -1.0, 0.3, -2.5, 1e-4, -1e-12, 1e-30, 1e-42, 0.0]), min_size=4, max_size=4)
schemes = st.builds(
    Scheme,
    weight_range=st.sampled_from(["minmax", "percentile", "mse", "lsq"]),
    weight_grid=st.sampled_from(["asymmetric", "symmetric"]),
    weight_granularity=st.sampled_from(["per-channel", "per-tensor"]),
)


def layer_and_batchnorm(kind, gammas, seed, affine=True):
    layer = {
        "conv": lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False),
        "with bias": lambda: nn.Conv2d(3, 4, 3),
        "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
        "transposed": lambda: nn.ConvTranspose2d(3, 4, 2),
        "linear": lambda: nn.Linear(3, 4),
    }[kind]()
    layer.weight.data = normal(seed, *layer.weight.shape).float()
    batchnorm = (nn.BatchNorm1d if kind == "linear" else nn.BatchNorm2d)(4, affine=affine)
    batchnorm.running_mean.data = normal(seed + 1, 4).float()
    batchnorm.running_var.data = normal(seed + 2, 4).float().square()
    if affine:
        batchnorm.weight.data, batchnorm.bias.data = torch.tensor(gammas), normal(seed + 3, 4).float()
    channels = 4 if kind == "depthwise" else 3
    images = normal(seed, 5, channels, *([] if kind == "linear" else [6, 6])).float()
    return nn.Sequential(layer, batchnorm).eval(), images


@pytest.mark.parametrize("kind", ["conv", "with bias", "depthwise", "transposed", "linear"])
@settings(max_examples=30)
@given(seeds, factors, bit_widths, schemes, st.booleans())
def test_folding_changes_nothing_but_rounding(kind, seed, gammas, bits, scheme, affine):
    network, images = layer_and_batchnorm(kind, gammas, seed, affine)
    quantized = quantize(network, Bits(bits, 8), scheme)
    calibrate(quantized, [images])
    folded = integer_copy(quantized)
    before = integers_of(folded[0])
    fold(folded, "0", "1")
    assert isinstance(folded[1], nn.Identity)
    with torch.no_grad():
        expected, found = quantized(images), folded(images)
        # Rounding is relative to what is added up, not to what is left of it.
        size = quantized[1](quantized[0](images).abs()).abs().max() + quantized[1].running_mean.abs().max()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * (size.item() + 1))
    after = integers_of(folded[0])
    assert after.levels.max().item() < 2**bits
    assert (after.scale > 0).all()
    if scheme.weight_grid == "symmetric" and scheme.weight_range == "minmax":
        assert (before.zero_point == after.zero_point).all()  # mirrored about zero


def test_by_hand():
    """Levels 0, 1, 3 of a 2-bit grid with zero point 1 and scale 2 are -2, 0, 4; times -3: 6, 0, -12."""
    network = nn.Sequential(nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1, eps=0)).eval()
    network[0].weight.data = torch.tensor([[-2.0, 0, 4]])
    network[1].weight.data, network[1].bias.data = torch.tensor([-6.0]), torch.tensor([5.0])
    network[1].running_mean.data, network[1].running_var.data = torch.tensor([1.0]), torch.tensor([4.0])
    folded = integer_copy(quantize(network, Bits(2, 32)))
    fold(folded, "0", "1")
    levels, scale, zero_point = integers_of(folded[0])
    assert levels.tolist() == [[3, 2, 0]]
    assert zero_point.tolist() == [[2]]
    assert scale.tolist() == [[6.0]]
    assert folded[0].weight.tolist() == [[6.0, 0.0, -12.0]]
    assert folded[0].bias.tolist() == [5 + 3 * 1]  # beta - mean * factor


class Twice(nn.Module):
    """One convolution's output has two readers; another runs twice; a third is followed by BatchNorm and activation."""

    def __init__(self):
        super().__init__()
        self.read_twice, self.runs_twice, self.once = (nn.Conv2d(2, 2, 1) for _ in range(3))
        self.a, self.b, self.c = nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.d = BatchNormAct2d(2)

    def forward(self, x):
        y = self.read_twice(x)
        x = self.a(y) + y
        x = self.c(self.runs_twice(self.b(self.runs_twice(x))))
        return self.d(self.once(x))


def test_only_what_one_batchnorm_alone_reads_is_folded():
    torch.manual_seed(1)
    network, images = Twice().eval(), torch.randn(2, 2, 3, 3)
    for batchnorm in (network.a, network.b, network.c, network.d):
        batchnorm.running_mean.data, batchnorm.weight.data = torch.randn(2), torch.randn(2)
    quantized = quantize(network, Bits(8, 8))
    calibrate(quantized, [images])
    assert batchnorm_after(trace(integer_copy(quantized), images)) == {"once": "d"}
    torch.testing.assert_close(integer_network(quantized, images)(images), quantized(images), rtol=1e-4, atol=1e-4)


def test_the_network_itself_is_left_alone():
    network = load_backbone("cifar_resnet20", "random")
    quantized, images = quantize(network, Bits(8, 8), Scheme(sums="quantized")), torch.randn(2, 3, 32, 32)
    calibrate(quantized, [images])
    expected = quantized(images)
    assert torch.equal(integer_copy(quantized)(images), expected)
    assert len(batchnorm_after(trace(integer_network(quantized, images), images))) == 0  # all 19 are gone
    assert torch.equal(quantized(images), expected)


def test_what_cannot_be_traced_is_said():
    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            while x.sum() < 10:
                x = self.layer(x) + 1
            return x

    with pytest.raises(ValueError, match="the network cannot be traced: "):
        trace(Loops(), torch.randn(2, 2))


def test_the_float_twin_has_the_same_weights_and_rounds_nothing():
    network, images = layer_and_batchnorm("conv", [1.0, -2.0, 0.5, 0.0], seed=0)
    quantized = quantize(network, Bits(4, 3), Scheme(weight_range="mse"))
    calibrate(quantized, [images])
    weights_only = quantize(network, Bits(4, 32), Scheme(weight_range="mse"))
    twin = float_twin(integer_network(quantized, images))
    assert twin[0].weight.dtype == torch.float32
    torch.testing.assert_close(twin(images), weights_only(images).detach(), rtol=1e-5, atol=1e-5)
