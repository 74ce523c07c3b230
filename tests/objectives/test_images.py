"""Terms on images and the low pass: by hand, and what holds whatever the images."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from zerosum.objectives import cosine_margin, low_pass, total_variation

images = st.builds(normal, seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
cutoffs = st.sampled_from([0.1, 1.0, 3.0, 100.0])


def test_total_variation_by_hand():
    x = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]])
    # To the right 3 and -4; below 4 and -3; the falling diagonal 0, the rising one -1.
    assert total_variation(x).item() == pytest.approx(5 + 5 + 0 + 1)
    assert total_variation(x.expand(4, 1, 2, 2)).item() == pytest.approx(22)  # the root of 4 times as much


@given(images, st.floats(-10, 10))
def test_total_variation_is_a_seminorm_that_constants_and_mirrors_do_not_change(x, factor):
    value = total_variation(x)
    assert value >= 0
    torch.testing.assert_close(total_variation(factor * x + 1), abs(factor) * value)
    assert total_variation(x + x.flip(0)) <= 2 * value * (1 + 1e-9) + 1e-9
    for mirrored in (x.flip(2), x.flip(3), x.mT):
        torch.testing.assert_close(total_variation(mirrored), value)


def test_an_image_without_detail_has_no_variation_and_no_gradient():
    x = torch.ones(2, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(total_variation(x), x)
    assert total_variation(x) == 0
    assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("cycles", range(5))
def test_a_wave_is_weakened_by_its_frequency(axis, cycles):
    wave = torch.cos(2 * math.pi * cycles * torch.arange(8, dtype=torch.float64) / 8)
    x = (wave if axis == 3 else wave[:, None]).expand(1, 1, 8, 8)
    torch.testing.assert_close(low_pass(x, 2.0), x * math.exp(-(cycles**2) / 8))


@given(images, cutoffs, seeds)
def test_the_low_pass_is_linear_keeps_constants_and_commutes_with_shifts(x, cutoff, seed):
    other = normal(seed, *x.shape)
    passed = low_pass(x, cutoff)
    assert passed.shape == x.shape
    assert passed.dtype == x.dtype
    torch.testing.assert_close(low_pass(2 * x - other, cutoff), 2 * passed - low_pass(other, cutoff))
    torch.testing.assert_close(low_pass(torch.full_like(x, 3.0), cutoff), torch.full_like(x, 3.0))
    torch.testing.assert_close(passed.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(low_pass(x.roll((2, 1), (2, 3)), cutoff), passed.roll((2, 1), (2, 3)))
    for mirrored in (lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.mT):
        torch.testing.assert_close(low_pass(mirrored(x), cutoff), mirrored(passed))
    assert passed.square().sum() <= x.square().sum() * (1 + 1e-9)


@given(images)
def test_the_low_pass_goes_from_the_mean_to_the_identity(x):
    torch.testing.assert_close(low_pass(x, math.inf), x)
    torch.testing.assert_close(low_pass(x, 1e6), x)
    torch.testing.assert_close(low_pass(x, 1e-3), x.mean((2, 3), keepdim=True).expand_as(x))


@given(images, cutoffs, seeds)
def test_the_gradient_of_the_low_pass_is_the_low_pass_of_the_gradient(x, cutoff, seed):
    towards = normal(seed, *x.shape)
    (found,) = torch.autograd.grad(low_pass(x.requires_grad_(), cutoff), x, towards)
    torch.testing.assert_close(found, low_pass(towards, cutoff))


def test_the_low_pass_takes_bfloat16_and_refuses_no_cutoff():
    x = torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(low_pass(x.bfloat16(), 2.0), low_pass(x, 2.0).bfloat16(), rtol=0.05, atol=0.05)
    for cutoff in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"the cutoff is above 0, not {cutoff}"):
            low_pass(x, cutoff)


def test_cosine_margin_by_hand():
    features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [5.0, 5.0]])
    centres = torch.tensor([[1.0, 0.0], [4.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    # Distances 0, 1 and 2: of [0.3, 0.8], the first lacks 0.3, the others are 0.2 and 1.2 beyond; the last has none.
    assert cosine_margin(features, centres, 0.3, 0.8).item() == pytest.approx((0.3 + 0.2 + 1.2) / 3)
    assert cosine_margin(features, torch.zeros(4, 2), 0.3, 0.8).item() == 0


vectors = st.builds(normal, seeds, st.integers(1, 5), st.integers(1, 6))
margins = st.tuples(st.floats(0, 2), st.floats(0, 2)).map(sorted)


@given(vectors, seeds, margins)
def test_what_cosine_margin_asks(features, seed, margin):
    centres = normal(seed, *features.shape)
    value = cosine_margin(features, centres, *margin)
    assert 0 <= value <= max(margin[0], 2 - margin[1]) + 1e-9
    lengths = 0.1 + normal(seed + 1, len(features), 1).abs()
    torch.testing.assert_close(cosine_margin(features * lengths, centres * lengths.flip(0), *margin), value)
    assert cosine_margin(features, centres, 0, 2) <= 1e-12  # nothing is asked
    torch.testing.assert_close(cosine_margin(features, features, *margin), features.new_tensor(margin[0]))
    beside = torch.cat([features, features]), torch.cat([centres, torch.zeros_like(centres)])
    torch.testing.assert_close(cosine_margin(*beside, *margin), value)


@given(vectors, seeds)
def test_only_features_follow_the_margin_and_their_gradient_is_finite(features, seed):
    centres = normal(seed, *features.shape).requires_grad_()
    centres.data[0] = 0
    features[-1] = 0
    loss = cosine_margin(features.requires_grad_(), centres, 0.5, 0.6)
    for_features, for_centres = torch.autograd.grad(loss, (features, centres), allow_unused=True)
    assert for_centres is None
    assert torch.isfinite(for_features).all()
    assert torch.equal(for_features[0], torch.zeros_like(for_features[0]))
