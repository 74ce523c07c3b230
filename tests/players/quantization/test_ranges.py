"""Range estimators: by hand, and what holds for all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import bit_widths, normal, scales, seeds
from zerosum.players import Bits, Grid, Scheme, quantize
from zerosum.players.quantization.ranges import WAYS, sample

estimators = pytest.mark.parametrize("name", ["minmax", "ema", "percentile", "mse", "lsq"])


def heavy_tailed(seed, scale, rows=3, values=400):
    return (normal(seed, rows, values) ** 3 * scale).float()


def find_range(name, x, bits, symmetric):
    make_range, _ = WAYS[name]
    return make_range().find(x, bits, symmetric)


def squared_error(x, low, high, bits, symmetric):
    return (Grid.over(low, high, bits, symmetric).round(x, 0) - x).double().square().mean(dim=1)


@given(seeds, scales, bit_widths, st.booleans())
def test_mse_never_has_a_larger_error_than_minmax(seed, scale, bits, symmetric):
    x = heavy_tailed(seed, scale)
    errors = [squared_error(x, *find_range(name, x, bits, symmetric), bits, symmetric) for name in ("mse", "minmax")]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()


def test_mse_cuts_an_outlier_off_in_few_bits():
    x = torch.cat([torch.linspace(-1, 1, 1000), torch.tensor([4.0])])[None]
    low, high = find_range("mse", x, 3, False)
    assert high.item() < 4
    assert squared_error(x, low, high, 3, False) < 0.7 * squared_error(x, *find_range("minmax", x, 3, False), 3, False)


@estimators
@given(seeds, scales, bit_widths, st.booleans())
def test_no_range_reaches_beyond_the_values_and_rows_are_alone(name, seed, scale, bits, symmetric):
    x = heavy_tailed(seed, scale)
    low, high = find_range(name, x, bits, symmetric)
    assert (low >= x.amin(dim=1)).all()
    assert (high <= x.amax(dim=1)).all()
    assert (low <= high).all()
    for row in range(len(x)):
        alone = find_range(name, x[row : row + 1], bits, symmetric)
        torch.testing.assert_close(torch.cat(alone), torch.stack([low[row], high[row]]))


@estimators
@given(seeds, st.sampled_from([0.25, 2.0, 1024.0]), bit_widths)
def test_ranges_scale_with_the_values(name, seed, factor, bits):
    x = heavy_tailed(seed, 1)
    found = torch.stack(find_range(name, factor * x, bits, False))
    torch.testing.assert_close(found, factor * torch.stack(find_range(name, x, bits, False)))


@given(seeds, st.integers(2, 3000))
def test_the_percentile_is_numpys(seed, values):
    numpy = pytest.importorskip("numpy")
    x = normal(seed, 1, values, dtype=torch.float32)
    found = [end.item() for end in find_range("percentile", x, 8, False)]
    assert found == pytest.approx(numpy.percentile(x.numpy(), [0.05, 99.95]).tolist(), rel=1e-5, abs=1e-6)


def test_a_sample_has_all_values_or_many_and_the_outermost():
    x = torch.arange(60.0).reshape(3, 4, 5)
    assert torch.equal(sample(x), x.reshape(1, -1))
    x = torch.arange(1e6)
    taken = sample(x)
    assert taken.shape == (1, 2**14 + 2)
    assert (taken.min(), taken.max()) == (0, 1e6 - 1)
    assert taken.mean().item() == pytest.approx(5e5, rel=0.02)
    assert torch.equal(sample(x), taken)


@given(seeds, scales, bit_widths, st.integers(1, 9))
def test_pairwise_levels_of_neighbours_fit_in_16_bits_with_any_activations(seed, scale, bits, values):
    x = heavy_tailed(seed, scale, values=values)
    grid = Grid.over(*find_range("pairwise", x, bits, True), bits, True)
    levels = (grid.round(x, 0) / grid.scale[:, None]).round()
    assert levels.abs().max() <= 127
    if values > 1:
        assert (levels[:, 1:] + levels[:, :-1]).abs().max() * 255 <= 2**15 - 1


@given(seeds, scales, st.integers(2, 7))
def test_pairwise_is_minmax_below_8_bits(seed, scale, bits):
    x = heavy_tailed(seed, scale)
    assert all(map(torch.equal, find_range("pairwise", x, bits, True), find_range("minmax", x, bits, True)))


def test_pairwise_by_hand():
    x = torch.tensor([[3.0, 4.0, -5.0], [3.0, -4.0, 5.0]])
    low, high = find_range("pairwise", x, 8, True)
    assert high.tolist() == [7.0, 5.0]
    assert low.tolist() == [-5.0, -4.0]


def test_pairwise_neighbours_are_input_channels():
    weight = torch.zeros(1, 2, 1, 2)
    weight[0, :, 0, 0] = torch.tensor([3.0, 4.0])  # beside each other in a kernel that has channels innermost
    layer = torch.nn.Conv2d(2, 1, (1, 2), bias=False)
    layer.weight.data = weight
    quantized = quantize(torch.nn.Sequential(layer), Bits(8, 32), Scheme("pairwise", "symmetric"))
    grid = quantized[0].parametrizations.weight[0].grid_of(weight)
    assert grid.scale.item() == pytest.approx(7 / 127)


def test_pairwise_wants_a_symmetric_grid():
    with pytest.raises(ValueError, match="pairwise: expected the symmetric weight grid"):
        Scheme("pairwise")
