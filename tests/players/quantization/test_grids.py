"""Fake quantization: values by hand, the published code's, and what holds for every grid."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.strategies import bit_widths, normal, seeds
from zerosum.players import Grid, fake_quantize
from zerosum.players.quantization.grids import round_to_levels

spans = st.floats(1e-3, 1e3)
ranged = given(seeds, st.floats(-100, 100), spans, bit_widths, st.booleans())


def values_and_grid(seed, low, span, bits, symmetric):
    """Sorted values inside [low, low + span] and beyond on both sides, and the grid over that range."""
    x = low + span * (torch.rand(200, generator=torch.Generator().manual_seed(seed)) * 1.5 - 0.25)
    return x.sort().values, Grid.over(torch.tensor(low), torch.tensor(low + span), bits, symmetric)


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


def test_symmetric_values_by_hand():
    # [-1, 3] in 3 bits: zero is the middle level, the step is 3 / 3.
    x = torch.tensor([-9.0, -1.4, 0.4, 1.6, 9.0])
    assert fake_quantize(x, torch.tensor(-1.0), torch.tensor(3.0), 3, symmetric=True).tolist() == [-4, -1, 0, 2, 3]
    grid = Grid.over(torch.tensor(-1.0), torch.tensor(3.0), 3, symmetric=True)
    assert (grid.scale.item(), grid.zero_point.item(), *(end.item() for end in grid.range)) == (1, 4, -4, 3)


@ranged
def test_few_levels_half_a_step_monotone(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    found, step = grid.round(x), grid.scale.item()
    assert len(found.unique()) <= 2**bits
    assert (found.diff() >= 0).all()
    lowest, highest = (end.item() for end in grid.range)
    # The grid spans the range that it was made for, but for the half step by which its zero point was rounded.
    assert lowest <= min(low, 0) + step / 2 * 1.001
    assert highest >= max(low + span, 0) - step / 2 * 1.001
    inside = (x >= lowest) & (x <= highest)
    assert ((found - x).abs()[inside] <= step / 2 + 1e-6 * (abs(low) + span)).all()
    assert ((found == lowest) | (x > lowest)).all()
    assert ((found == highest) | (x < highest)).all()


@ranged
def test_idempotent_and_exact_at_every_level_and_at_zero(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    found = grid.round(x)
    assert torch.equal(grid.round(found), found)
    levels = grid.scale * (torch.arange(2**bits) - grid.zero_point)
    assert torch.equal(grid.round(levels), levels)
    assert (levels == 0).sum() == 1
    assert grid.round(torch.zeros(1)).item() == 0


@ranged
def test_per_channel_is_per_tensor_channel_by_channel(seed, low, span, bits, symmetric):
    x = normal(seed, 3, 4, 5, dtype=torch.float32) * span + low
    lows, highs = x.transpose(0, 1).flatten(1).aminmax(dim=1)
    together = fake_quantize(x, lows, highs, bits, 1, symmetric)
    for channel in range(4):
        alone = fake_quantize(x[:, channel], lows[channel], highs[channel], bits, symmetric=symmetric)
        assert torch.equal(together[:, channel], alone)


@ranged
def test_the_gradient_is_straight_through_inside_and_nothing_outside(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(grid.round(x).sum(), x)
    lowest, highest = grid.range
    step = grid.scale
    assert (gradient[(x > lowest) & (x < highest)] == 1).all()
    assert (gradient[(x < lowest - step) | (x > highest + step)] == 0).all()


@ranged
def test_one_grid_is_pytorchs_fake_quantization_to_the_bit(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    x.requires_grad_()
    towards = normal(seed, len(x), dtype=torch.float32)
    numbers = grid.scale.item(), int(grid.zero_point.item()), 0, 2**bits - 1
    found, expected = grid.round(x), torch.fake_quantize_per_tensor_affine(x, *numbers)
    assert torch.equal(found, expected)
    found, expected = (torch.autograd.grad((y * towards).sum(), x)[0] for y in (found, expected))
    assert torch.equal(found, expected)


@ranged
def test_grids_by_channel_are_pytorchs_fake_quantization_to_the_bit(seed, low, span, bits, symmetric):
    x = (normal(seed, 50, 3, 2, dtype=torch.float32) * span + low).requires_grad_()
    lows = low * torch.tensor([1, 0.5, 2])
    grid = Grid.over(lows, lows + span * torch.tensor([1, 3, 0.1]), bits, symmetric)
    levels = grid.scale, grid.zero_point, 1, 0, 2**bits - 1
    found, expected = grid.round(x, 1), torch.fake_quantize_per_channel_affine(x, *levels)
    assert torch.equal(found, expected)
    found, expected = (torch.autograd.grad(y.sum(), x)[0] for y in (found, expected))
    assert torch.equal(found, expected)


def test_half_precision_is_rounded_in_single_precision():
    x = torch.linspace(-1, 4, 4001).bfloat16()
    grid = Grid.over(torch.tensor(0.0), torch.tensor(3.0), 8)
    assert torch.equal(grid.round(x), grid.round(x.float()).bfloat16())
    assert grid.round(x).dtype == torch.bfloat16


def test_the_smallest_numbers_do_not_overflow_their_reciprocal():
    tiny = torch.tensor(1e-44)
    assert fake_quantize(torch.tensor([0.0, 1e-44, 1.0]), torch.zeros(()), tiny, 8).isfinite().all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_range_without_extent_gives_zeros_exactly(symmetric):
    zero = torch.zeros(())
    assert fake_quantize(torch.zeros(4), zero, zero, 4, symmetric=symmetric).tolist() == [0] * 4


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="expected 2 to 16"):
        fake_quantize(torch.zeros(1), torch.zeros(()), torch.ones(()), bits)


def learnable(grid):
    return grid._replace(scale=grid.scale.double().requires_grad_())


def smoothed(values, grid):
    """What LSQ differentiates, a function of x and the scale: rounding adds what it adds to ``values`` on ``grid``."""
    lowest, highest = -grid.zero_point, 2**grid.bits - 1 - grid.zero_point
    clamped = (values / grid.scale).clamp(lowest, highest).detach()
    return lambda x, scale: ((x / scale).clamp(lowest, highest) + (clamped.round() - clamped)) * scale


@ranged
def test_learned_step_sizes_have_the_gradients_of_the_smoothed_problem(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    grid, x = learnable(grid), x.double()
    lowest, highest = (end.item() for end in grid.range)
    # Defined but where clipping sets in.
    margin = 1e-3 * grid.scale.item()
    x = x[((x - lowest).abs() > margin) & ((x - highest).abs() > margin)].requires_grad_()
    weights = normal(seed, len(x))
    of_scale, of_x = torch.autograd.grad((weights * grid.round_learning(x, 10)).sum(), (grid.scale, x))

    function, step = smoothed(x, grid), 1e-6 * grid.scale.item()
    around = [(weights * function(x, grid.scale + sign * step)).sum().item() for sign in (1, -1)]
    factor = 1 / (10 * max(1, 2**bits - 1 - grid.zero_point.item())) ** 0.5
    torch.testing.assert_close(of_scale.item(), factor * (around[0] - around[1]) / (2 * step), rtol=1e-4, atol=1e-4)

    differences = (function(x + step, grid.scale) - function(x - step, grid.scale)) / (2 * step)
    torch.testing.assert_close(of_x, weights * differences.detach(), rtol=1e-4, atol=1e-6)


def test_the_learned_gradient_by_hand():
    # Scale 1, levels -2 … 1: 0.3 rounds down by 0.3, -1.4 up by 0.4; 5 is clipped to 1, -7 to -2.
    grid = Grid(torch.ones(1, requires_grad=True), torch.tensor([2]), 2)
    x = torch.tensor([0.3, -1.4, 5.0, -7.0])
    for value, gradient in zip(x, (-0.3, 0.4, 1.0, -2.0), strict=True):
        (found,) = torch.autograd.grad(grid.round_learning(value, 4).sum(), grid.scale)
        assert found.item() == pytest.approx(gradient / 2)  # 1 / sqrt(4 values * 1)


@ranged
def test_learning_rounds_to_the_same_values(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    quotient = x.double() / grid.scale.double()
    x = x[(quotient - quotient.floor() - 0.5).abs() > 1e-3]  # halfway, the two may go either way
    torch.testing.assert_close(grid.round_learning(x, 10), grid.round(x), rtol=1e-6, atol=0)
    rows = x.repeat(2, 1)
    twice = Grid(torch.stack([grid.scale, 2 * grid.scale]), grid.zero_point.expand(2), bits)
    assert torch.equal(twice.round_learning(rows, 10, channel_axis=0)[0], grid.round_learning(x, 10))


@given(seeds, st.floats(-100, 100), spans, st.integers(9, 16), st.booleans())
def test_more_than_8_bits_for_activations(seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    found, (lowest, highest) = grid.round(x), grid.range
    inside = x.clamp(lowest, highest)
    assert ((found - inside).abs() <= 0.501 * grid.scale + 2e-7 * x.abs().max()).all()
    assert len(found.unique()) <= 2**bits
    assert torch.allclose(grid.round(found), found, atol=0, rtol=1e-6)


@ranged
@pytest.mark.parametrize("between", [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 2.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_limits_and_rounding_in_one_go(between, dtype, seed, low, span, bits, symmetric):
    x, grid = values_and_grid(seed, low, span, bits, symmetric)
    x = x.to(dtype).requires_grad_()
    numbers = grid.scale.item(), int(grid.zero_point.item()), bits
    after = round_to_levels(F.hardtanh(x, *between), *numbers)
    at_once = round_to_levels(x, *numbers, between)
    assert torch.equal(at_once, after)
    weights = torch.randn(len(x), generator=torch.Generator().manual_seed(seed)).to(dtype)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (at_once, after)]
    assert torch.equal(*gradients)
