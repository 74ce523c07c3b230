import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, scales, seeds
from zerosum.projections import ball, box, simplex


def random_simplex(seed, *shape):
    return normal(seed, *shape).mul(2).softmax(-1)


def is_nearest(value, projected, others):
    """Of a convex set: the projected point makes an obtuse angle with the value and any other point of the set."""
    for other in others:
        angle = ((value - projected) * (other - projected)).sum()
        assert angle <= 1e-9 * (1 + value.abs().max() ** 2)


@given(seeds, st.integers(1, 100), scales)
def test_simplex(seed, size, scale):
    value = normal(seed, size) * scale
    found = simplex(value)
    assert (found >= 0).all()
    assert found.sum().item() == pytest.approx(1, abs=1e-9)
    is_nearest(value, found, [random_simplex(seed + i, size) for i in range(5)] + list(torch.eye(size).double()[:5]))
    torch.testing.assert_close(simplex(found), found, rtol=0, atol=1e-9)
    torch.testing.assert_close(simplex(value + 3.0), found, rtol=0, atol=1e-9 * max(1, scale))


def test_simplex_by_hand():
    assert simplex(torch.tensor([0.6, 0.6, -1.0])).tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert simplex(torch.tensor([5.0, 0.0])).tolist() == [1.0, 0.0]
    assert simplex(torch.tensor([[2.0, 0.0], [0.5, 0.5]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert simplex(torch.tensor([1e30, 0.0])).tolist() == [1.0, 0.0]


@given(seeds, st.floats(-5, 5), st.floats(0, 5))
def test_box(seed, low, width):
    value = normal(seed, 4, 3) * 5
    found = box(low, low + width)(value)
    torch.testing.assert_close(found, value.clamp(low, low + width))
    per_entry = box(torch.full((3,), low), torch.full((3,), low + width))(value)
    torch.testing.assert_close(per_entry, found, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="empty"):
        box(1.0, 0.0)


@given(seeds, st.just(0.0) | st.floats(1e-6, 5), st.booleans())
def test_ball(seed, radius, each):
    value = normal(seed, 4, 3, 2) * 2
    found = ball(radius, each)(value)
    norms = found.flatten(1).norm(dim=1) if each else found.norm().reshape(1)
    assert (norms <= radius * (1 + 1e-12)).all()
    inside = [ball(radius, each)(normal(seed + i, 4, 3, 2)) for i in range(1, 5)]
    is_nearest(value, found, inside)
    assert torch.equal(ball(1e6, each)(value), value)
    assert torch.equal(ball(1.0)(torch.zeros(2)), torch.zeros(2))
    with pytest.raises(ValueError, match="radius"):
        ball(-1.0)
