import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, pairs, seeds
from zerosum.objectives import (
    distillation_loss,
    focal_loss,
    half_variance,
    selective_cross_entropy,
    target_probability_loss,
)

HALF = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)  # probabilities 3/4, 1/4 and 1/2, 1/2
LABELS = torch.tensor([0, 1])


def test_values_by_hand():
    log2, of_three = math.log(2), -math.log(0.75)
    assert focal_loss(HALF, LABELS, 2.0).item() == pytest.approx((of_three / 16 + log2 / 4) / 2)
    assert target_probability_loss(HALF, LABELS).item() == pytest.approx((1 / 16 + 1 / 4) / 2)
    assert target_probability_loss(HALF, LABELS, torch.tensor([0.75, 0.25])).item() == pytest.approx(1 / 32)
    # P's difficulties are 1/4 and 1/2: one is easier than 0.4, both than 0.6, none than 0.2.
    q = torch.zeros_like(HALF)
    assert selective_cross_entropy(q, HALF, LABELS, 0.4).item() == pytest.approx(log2 / 2)
    assert selective_cross_entropy(q, HALF, LABELS, 0.6).item() == pytest.approx(log2)
    assert selective_cross_entropy(q, HALF, LABELS, 0.2).item() == 0
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert distillation_loss(HALF, q, 1.0).item() == pytest.approx(kl / 2)


@given(pairs(max_scale=1.0))
def test_distillation_goes_to_half_the_variance(pair):
    p, q, _ = pair
    torch.testing.assert_close(distillation_loss(p, q, 1e4), half_variance(p, q).mean(), rtol=1e-3, atol=1e-6)


@given(pairs(max_scale=10.0), seeds)
def test_distillation_is_zero_where_q_is_p_up_to_a_shift_and_never_below(pair, seed):
    p, q, _ = pair
    assert distillation_loss(p, q) >= -1e-9
    shifted = p + normal(seed, len(p), 1)
    torch.testing.assert_close(distillation_loss(p, shifted), p.new_zeros(()), atol=1e-9, rtol=0)
    assert not distillation_loss(p.requires_grad_(), q).requires_grad


@given(pairs(), st.floats(0, 5))
def test_focal_loss_is_between_nothing_and_cross_entropy(pair, gamma):
    p, _, labels = pair
    cross_entropy = F.cross_entropy(p, labels)
    torch.testing.assert_close(focal_loss(p, labels, 0.0), cross_entropy)
    assert 0 <= focal_loss(p, labels, gamma) <= cross_entropy * (1 + 1e-9)


@given(pairs(), st.floats(0, 1))
def test_the_other_losses_of_labels_are_bounded(pair, share):
    p, q, labels = pair
    assert 0 <= selective_cross_entropy(q, p, labels, share) <= F.cross_entropy(q, labels) * (1 + 1e-9)
    assert 0 <= target_probability_loss(p, labels, share) <= 1
    torch.testing.assert_close(selective_cross_entropy(q, p, labels, 1.1), F.cross_entropy(q, labels))


@given(pairs(dtype=torch.float32))
def test_gradients_stay_finite(pair):
    p, q, labels = pair
    p.requires_grad_(), q.requires_grad_()
    losses = (
        focal_loss(p, labels),
        focal_loss(p, labels, 0.5),
        target_probability_loss(p, labels),
        distillation_loss(p, q),
        selective_cross_entropy(q, p, labels),
    )
    for loss in losses:
        gradients = torch.autograd.grad(loss, (p, q), allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
