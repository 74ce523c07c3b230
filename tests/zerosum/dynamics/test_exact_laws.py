"""Each rule against its own equation, in float64: its law on min-max of x·y, the explicit formula on quadratics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from tests.zerosum.games import Quadratic, position, vector_game
from zerosum import (
    Alternating,
    ConsensusOptimization,
    Extragradient,
    Lookahead,
    Optimistic,
    Simultaneous,
    SymplecticGradientAdjustment,
)

steps = st.floats(1e-3, 0.9)
dimensions = st.integers(1, 100)
quadratics = st.builds(
    Quadratic, seeds, st.integers(1, 20), st.integers(1, 20), condition=st.floats(1, 100), coupling=st.floats(0, 3)
)
exact = {"rtol": 1e-9, "atol": 1e-12}


def dot_game(seed, size, step):
    """max over x, min over y of x·y, from a random start."""
    return vector_game(torch.dot, normal(seed, size), normal(seed + 1, size), step)


def lengths(game, rule, rounds=5):
    found = [position(game).norm().item()]
    for _ in range(rounds):
        rule.step(game, game.players)
        found.append(position(game).norm().item())
    return found


@given(seeds, dimensions, steps)
def test_simultaneous_play_of_x_dot_y_grows(seed, size, step):
    start, *found = lengths(dot_game(seed, size, step), Simultaneous())
    assert found == pytest.approx([start * math.sqrt(1 + step**2) ** n for n in range(1, 6)], rel=1e-9)


@given(seeds, dimensions, steps)
def test_extragradient_play_of_x_dot_y_shrinks(seed, size, step):
    start, *found = lengths(dot_game(seed, size, step), Extragradient())
    rate = math.sqrt(1 - step**2 + step**4)
    assert found == pytest.approx([start * rate**n for n in range(1, 6)], rel=1e-9)


@given(seeds, dimensions, steps)
def test_alternating_play_of_x_dot_y_keeps_its_invariant(seed, size, step):
    """With x, who maximizes, first: |x|² + |y|² + η x·y. With y first the sign of η x·y is the other one, as it is
    for who calls the minimizer x."""
    game = dot_game(seed, size, step)

    def invariant():
        w = position(game)
        return (w @ w + step * w[:size] @ w[size:]).item()

    start = invariant()
    for _ in range(5):
        Alternating().step(game, game.players)
        assert invariant() == pytest.approx(start, rel=1e-9)


@given(seeds, dimensions, steps)
def test_optimistic_play_follows_its_two_term_recurrence(seed, size, step):
    """w' = w - 2η F(w) + η F(w⁻), on x·y: F = (-y, x)."""
    game, rule = dot_game(seed, size, step), Optimistic()

    def field(w):
        return torch.cat([-w[size:], w[:size]])

    w, before = position(game), torch.zeros(2 * size, dtype=torch.float64)
    for _ in range(6):
        rule.step(game, game.players)
        w, before = w - 2 * step * field(w) + step * before, field(w)
        torch.testing.assert_close(position(game), w, **exact)


def moved(quadratic, rule, step, rounds=1):
    game = quadratic.game(step)
    for _ in range(rounds):
        rule.step(game, game.players)
    return position(game)


@given(quadratics, steps)
def test_simultaneous_extragradient_and_alternating_equal_their_formulas(quadratic, step):
    w, field = quadratic.start, quadratic.field
    torch.testing.assert_close(moved(quadratic, Simultaneous(), step), w - step * field(w), **exact)
    torch.testing.assert_close(moved(quadratic, Extragradient(), step), w - step * field(w - step * field(w)), **exact)
    between = torch.cat([(w - step * field(w))[: quadratic.m], w[quadratic.m :]])
    expected = torch.cat([between[: quadratic.m], (w - step * field(between))[quadratic.m :]])
    torch.testing.assert_close(moved(quadratic, Alternating(), step), expected, **exact)


@given(quadratics, steps, st.floats(0, 10))
def test_consensus_equals_the_formula_with_the_jacobian_formed(quadratic, step, gamma):
    w, J = quadratic.start, quadratic.jacobian
    F = quadratic.field(w)
    expected = w - step * (F + gamma * J.T @ F)
    torch.testing.assert_close(moved(quadratic, ConsensusOptimization(gamma), step), expected, **exact)


@given(quadratics, steps, st.floats(0, 10), st.booleans())
def test_symplectic_adjustment_equals_the_formula_with_the_jacobian_formed(quadratic, step, adjustment, align):
    w, J = quadratic.start, quadratic.jacobian
    F, A = quadratic.field(w), (J - J.T) / 2
    sign = 1.0
    if align:
        sign = torch.sign((F @ J.T @ F) * ((A.T @ F) @ (J.T @ F)) / len(w) + 0.1)
    expected = w - step * (F + sign * adjustment * A.T @ F)
    rule = SymplecticGradientAdjustment(adjustment, align)
    torch.testing.assert_close(moved(quadratic, rule, step), expected, **exact)


def test_alignment_turns_the_adjustment_round_at_an_unstable_point():
    """f = x² + 3xy - y² has its saddle the wrong way round for x, who maximizes: F = (-2x - 3y, 3x - 2y) repels, and
    the adjustment, which would hold the players there, is subtracted."""
    F = torch.tensor([-5.0, 1.0], dtype=torch.float64)
    J = torch.tensor([[-2.0, -3.0], [3.0, -2.0]], dtype=torch.float64)
    for align, sign in ((True, -1), (False, 1)):
        game = vector_game(lambda x, y: (x * x + 3 * x * y - y * y).sum(), [1.0], [1.0], step=0.1)
        SymplecticGradientAdjustment(0.5, align).step(game, game.players)
        expected = torch.ones(2, dtype=torch.float64) - 0.1 * (F + sign * 0.5 * (J - J.T).T / 2 @ F)
        torch.testing.assert_close(position(game), expected, **exact)


@given(quadratics, steps, st.integers(1, 4), st.floats(0.1, 1))
def test_lookahead_goes_back_part_of_the_way_every_k_rounds(quadratic, step, k, alpha):
    w = quadratic.start
    for _ in range(2):
        fast = w
        for _ in range(k):
            fast = fast - step * quadratic.field(fast)
        w = w + alpha * (fast - w)
    torch.testing.assert_close(moved(quadratic, Lookahead(Simultaneous(), k, alpha), step, rounds=2 * k), w, **exact)


@given(quadratics, steps)
def test_optimistic_within_lookahead_keeps_its_last_update(quadratic, step):
    w, update = quadratic.start, torch.zeros_like(quadratic.start)
    for _ in range(3):
        fast = w
        for _ in range(2):
            new = -step * quadratic.field(fast)
            fast, update = fast + 2 * new - update, new
        w = w + 0.5 * (fast - w)
    found = moved(quadratic, Lookahead(Optimistic(), k=2, alpha=0.5), step, rounds=6)
    torch.testing.assert_close(found, w, **exact)


def test_settings_out_of_range_are_refused():
    for make in (
        lambda: Lookahead(Simultaneous(), k=0),
        lambda: Lookahead(Simultaneous(), alpha=0.0),
        lambda: Lookahead(Simultaneous(), alpha=1.5),
        lambda: ConsensusOptimization(-1.0),
        lambda: SymplecticGradientAdjustment(-1.0),
    ):
        with pytest.raises(ValueError, match="at least"):
            make()
