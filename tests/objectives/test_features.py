import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from zerosum.objectives import (
    attention_divergence,
    channel_attention,
    feature_alignment,
    relation_loss,
    spatial_attention,
)

LOSSES = [feature_alignment, attention_divergence, relation_loss]
losses = pytest.mark.parametrize("loss", LOSSES)


@st.composite
def features(draw, count=2):
    """As many networks' features of one to three blocks."""
    images = draw(st.integers(1, 3))
    shapes = draw(st.lists(st.tuples(st.just(images), *[st.integers(1, 5)] * 3), min_size=1, max_size=3))
    seed = draw(seeds)
    return [[normal(seed + 10 * n + i, *shape) for i, shape in enumerate(shapes)] for n in range(count)]


def test_attentions_by_hand():
    x = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])  # one image, two channels, one row of two pixels
    torch.testing.assert_close(channel_attention(x), torch.tensor([[4.5, 8.0]]) / math.hypot(4.5, 8))
    torch.testing.assert_close(spatial_attention(x), torch.tensor([[4.5, 8.0]]) / math.hypot(4.5, 8))


def test_losses_by_hand():
    p, q = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    p[0, 0], q[0, 1] = 2, 2  # one pixel, of which each sees another channel
    assert feature_alignment([p], [q]).item() == pytest.approx(1.0)
    # Channel attentions (1, 0) and (0, 1) over 8: probabilities s and 1 - s with s = 1 / (1 + exp(-1/8)).
    s = 1 / (1 + math.exp(-0.125))
    kl = s * math.log(s / (1 - s)) + (1 - s) * math.log((1 - s) / s)
    assert attention_divergence([p], [q]).item() == pytest.approx(kl)
    # F is (1, 0) and (0, 1). S is 1.1 F: they differ by 1.1. Rows of max - F Fᵀ are (0, 1), (0, 0) for P; times F, of
    # P: (a, 1/2), of Q: (1/2, a), a = 1 / (1 + e).
    a = 1 / (1 + math.e)
    second = (abs(1 + a / 10 - 0.05) + abs(0.05 - 1 - a / 10)) / 2
    assert relation_loss([p], [q]).item() == pytest.approx(1.1 + second)


@losses
@given(features())
def test_zero_where_the_networks_see_the_same_and_never_below(loss, pair):
    p, q = pair
    assert loss(p, p).item() == pytest.approx(0, abs=1e-12)
    assert loss(p, q) >= -1e-12


@losses
@given(features(), seeds)
def test_the_order_of_images_changes_nothing(loss, pair, seed):
    order = torch.randperm(len(pair[0][0]), generator=torch.Generator().manual_seed(seed))
    mixed = [[x[order] for x in side] for side in pair]
    torch.testing.assert_close(loss(*mixed), loss(*pair))


@given(features())
def test_whom_a_loss_teaches(pair):
    p, q = ([x.requires_grad_() for x in side] for side in pair)
    for loss in (feature_alignment, attention_divergence):
        assert all(g is None for g in torch.autograd.grad(loss(p, q), p, allow_unused=True, retain_graph=True))
    both = torch.autograd.grad(relation_loss(p, q), [*p, *q])
    assert all(torch.isfinite(gradient).all() for gradient in both)


@losses
def test_blocks_have_to_match(loss):
    one = [torch.ones(1, 1, 1, 1)]
    for p, q in (([], []), (one, one * 2)):
        with pytest.raises(ValueError, match="as many blocks"):
            loss(p, q)
