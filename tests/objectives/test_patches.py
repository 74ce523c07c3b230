"""Patch-similarity entropy: by hand, and what holds whatever the patches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from zerosum.objectives import patch_entropy_loss, patch_similarity_entropy

patches = st.builds(normal, seeds, st.integers(1, 3), st.integers(2, 12), st.integers(1, 6))
bandwidths = st.sampled_from([0.05, 0.1, 0.3])


def of_one_kernel(bandwidth):
    return math.log(bandwidth * math.sqrt(2 * math.pi * math.e))


@given(seeds, bandwidths)
def test_equal_patches_have_the_entropy_of_one_kernel(seed, bandwidth):
    x = normal(seed, 1, 1, 5).expand(2, 7, 5)
    found = patch_similarity_entropy(x, bandwidth)
    torch.testing.assert_close(found, torch.full_like(found, of_one_kernel(bandwidth)), rtol=0, atol=1e-3)


def test_two_groups_that_are_opposite_by_hand():
    # Of the 6 pairs of + + - -, 2 have similarity 1 and 4 have -1, far apart: the entropy of which, and of a kernel.
    x = torch.tensor([[[1.0, 0], [2, 0], [-1, 0], [-3, 0]]], dtype=torch.float64)
    which = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert patch_similarity_entropy(x).item() == pytest.approx(of_one_kernel(0.1) + which, abs=1e-3)


@given(patches, bandwidths)
def test_it_lies_between_one_kernel_and_uniform(x, bandwidth):
    found = patch_similarity_entropy(x, bandwidth)
    assert found.shape == x.shape[:1]
    assert (found >= of_one_kernel(bandwidth) - 1e-3).all()
    assert (found <= math.log(2 + 8 * bandwidth) + 1e-3).all()


@given(patches, seeds)
def test_neither_order_nor_length_nor_rotation_matters(x, seed):
    expected = patch_similarity_entropy(x)
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    lengths = 0.1 + normal(seed, *x.shape[:2], 1).abs()
    rotation = torch.linalg.qr(normal(seed, x.shape[2], x.shape[2])).Q
    for other in (x[:, order], x * lengths, x @ rotation):
        torch.testing.assert_close(patch_similarity_entropy(other), expected)
    torch.testing.assert_close(patch_similarity_entropy(x[:1]), expected[:1])


@given(seeds)
def test_its_gradient_is_that_of_finite_differences(seed):
    x = normal(seed, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(patch_similarity_entropy, (x,), eps=1e-6, atol=1e-5)


def test_more_distinct_patches_have_more_entropy():
    alike = torch.tensor([1.0, 0, 0]) + 0.01 * torch.randn(1, 30, 3)
    groups = torch.eye(3).repeat(10, 1)[None] + 0.3 * torch.randn(1, 30, 3)
    assert patch_similarity_entropy(groups) > patch_similarity_entropy(alike) + 0.5


def test_the_loss_is_minus_the_mean_over_layers_and_images():
    layers = [torch.randn(3, 5, 4), torch.randn(3, 9, 2)]
    expected = -(patch_similarity_entropy(layers[0]).mean() + patch_similarity_entropy(layers[1]).mean()) / 2
    torch.testing.assert_close(patch_entropy_loss(layers), expected)
    with pytest.raises(ValueError, match="at least one layer"):
        patch_entropy_loss([])


@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 5), (2, 3, 4, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"patches have shape \(N, patches, channels\)"):
        patch_similarity_entropy(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"bandwidth is 0.05 or more, not 0.01"):
        patch_similarity_entropy(torch.zeros(1, 2, 3), 0.01)


def test_far_from_all_similarities_the_gradient_is_finite():
    """There the density is 0, and so is what it adds to the entropy."""
    patches = (torch.ones(1, 5, 3) + 1e-3 * torch.randn(1, 5, 3)).requires_grad_()
    patch_similarity_entropy(patches).sum().backward()
    assert patches.grad.isfinite().all()
    assert patches.grad.abs().max() > 0
