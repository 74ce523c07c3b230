import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from zerosum.objectives import (
    activation_map_loss,
    attention_divergence,
    channel_attention,
    class_activation_map,
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


def head(features, seed, classes=3):
    """Logits of pooled features, by a random linear classifier, and its weight (classes, channels)."""
    weight = normal(seed, classes, features.shape[1])
    return features.mean((2, 3)) @ weight.T, weight


def test_an_activation_map_by_hand():
    features = torch.tensor([[[[1.0, 0.0, 2.0]], [[0.0, 4.0, 1.0]]]], requires_grad=True)  # two channels, three pixels
    logits = features.mean((2, 3)) @ torch.tensor([[3.0, 6.0], [0.0, -1.0]]).T
    # The first class has most, and its logit slopes 3/3 and 6/3 a pixel, of which the means are a third: 1/3 and 2/3
    # of what the map is then; (1, 8, 4) in thirds, from 0 to 1.
    torch.testing.assert_close(class_activation_map(features, logits), torch.tensor([[[0.0, 1.0, 3 / 7]]]))
    # Where a channel speaks against the top class, it counts for nothing: of (1, 0, 2), from 0 to 1.
    logits = features.mean((2, 3)) @ torch.tensor([[3.0, -0.3], [-1.0, -9.0]]).T
    torch.testing.assert_close(class_activation_map(features, logits), torch.tensor([[[0.5, 0.0, 1.0]]]))


one_block = st.builds(normal, seeds, st.integers(1, 3), *[st.integers(1, 5)] * 3)


@given(one_block, seeds)
def test_an_activation_map_is_grad_cam(features, seed):
    features.requires_grad_()
    logits, weight = head(features, seed)
    found = class_activation_map(features, logits)
    assert found.shape == (len(features), *features.shape[2:])
    slopes = weight[logits.argmax(1)].clamp(min=1e-10)  # but for a factor: places are as many for each channel
    seen = torch.einsum("nk,nkhw->nhw", slopes, features).relu().flatten(1)
    for row, expected in zip(found.flatten(1), seen, strict=True):
        span = expected.max() - expected.min()
        expected = (expected - expected.min()) / span if span > 0 else torch.zeros_like(expected)
        torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-7)
    # Neither the scale of logits nor that of features matters, if the class stays.
    torch.testing.assert_close(class_activation_map(features, 2 * logits + 1), found, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(class_activation_map(features, logits), found)


@given(one_block, seeds)
def test_activation_maps_are_no_loss_where_q_is_p_and_teach_q_alone(features, seed):
    p_features, q_features = features.clone().requires_grad_(), features.clone().requires_grad_()
    p, q = head(p_features, seed)[0], head(q_features, seed)[0]
    assert activation_map_loss(p_features, p, q_features, q) == 0
    other = normal(seed + 1, *features.shape).requires_grad_()
    loss = activation_map_loss(p_features, p, other, head(other, seed)[0])
    assert 0 <= loss <= 1
    for_p, for_q = torch.autograd.grad(loss, (p_features, other), allow_unused=True)
    assert for_p is None
    assert torch.isfinite(for_q).all()
    q.sum().backward()  # the graph is still there


def test_the_slopes_of_an_activation_map_are_constants():
    """Of first order: where slopes depend on features, their derivative is left out."""
    x = normal(0, 2, 3, 2, 2).abs().requires_grad_()
    logits = torch.stack([x.square().mean((1, 2, 3)), x.new_full((2,), -1.0)], dim=1)
    (found,) = torch.autograd.grad(class_activation_map(x, logits).square().sum(), x)
    a = (2 * x.detach() / 12).mean((2, 3), keepdim=True)
    y = x.detach().clone().requires_grad_()
    seen = (a * y).sum(1)
    low, high = seen.amin((1, 2), keepdim=True), seen.amax((1, 2), keepdim=True)
    (expected,) = torch.autograd.grad(((seen - low) / (high - low)).square().sum(), y)
    torch.testing.assert_close(found, expected)


def test_a_constant_map_is_zero_and_features_out_of_the_graph_are_refused():
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    found = class_activation_map(x, x.mean((2, 3)))
    assert torch.equal(found, torch.zeros(1, 3, 3))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(gradient).all()
    with pytest.raises(RuntimeError):
        class_activation_map(x.detach(), x.mean((2, 3)))
