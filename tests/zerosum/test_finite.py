import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.strategies import normal, seeds
from zerosum import (
    Exploitability,
    Extragradient,
    Match,
    MixedStrategy,
    Optimistic,
    Simultaneous,
    extragradient_step,
    matrix_game,
)
from zerosum.projections import simplex
from zerosum.recipes.common.payoffs import exact_solution


def strategies(game):
    with torch.no_grad():
        return [player.module().clone() for player in game.players]


@given(seeds, st.integers(1, 10), st.integers(1, 10), st.floats(0.01, 2))
def test_one_round_of_each_move_is_its_formula(seed, m, n, step):
    payoffs = normal(seed, m, n)
    p, q = torch.full((m,), 1 / m).double(), torch.full((n,), 1 / n).double()
    for _ in range(2):
        game = matrix_game(payoffs, "multiplicative", step)
        Simultaneous().step(game, game.players)
        found = strategies(game)
        expected_p = p * torch.exp(step * payoffs @ q)
        expected_q = q * torch.exp(-step * payoffs.T @ p)
        torch.testing.assert_close(found[0], expected_p / expected_p.sum())
        torch.testing.assert_close(found[1], expected_q / expected_q.sum())
    game = matrix_game(payoffs, "projected", step)
    Simultaneous().step(game, game.players)
    torch.testing.assert_close(strategies(game)[0], simplex(p + step * payoffs @ q))
    torch.testing.assert_close(strategies(game)[1], simplex(q - step * payoffs.T @ p))


@given(seeds, st.floats(0.01, 0.5))
def test_optimistic_multiplicative_weights_is_the_papers(seed, step):
    """p' ∝ p · exp(2η g - η g⁻) (Daskalakis and Panageas 2019)."""
    payoffs = normal(seed, 4, 3)
    game, rule = matrix_game(payoffs, "multiplicative", step), Optimistic()
    (p, q), before = strategies(game), (torch.zeros(4), torch.zeros(3))
    for _ in range(4):
        now = payoffs @ q, -payoffs.T @ p
        p, q = (s * torch.exp(2 * step * g - step * b) for s, g, b in zip((p, q), now, before, strict=True))
        p, q, before = p / p.sum(), q / q.sum(), now
        rule.step(game, game.players)
        torch.testing.assert_close(strategies(game), [p, q])


@pytest.mark.parametrize("move", ["projected", "multiplicative"])
def test_the_average_is_the_mean_of_the_strategies_played(move):
    payoffs = normal(1, 5, 4)
    game = matrix_game(payoffs, move, 0.5, average=True)
    match = Match(game, Simultaneous(), rounds=0)
    played = []
    for _ in range(7):
        match.rounds += 1
        match.play()
        played.append(strategies(game))
    for player, of_one in zip(game.players, zip(*played, strict=True), strict=True):
        torch.testing.assert_close(player.average().detach(), torch.stack(of_one).mean(dim=0))


def test_averages_converge_where_the_last_strategies_circle():
    """A lopsided rock, paper, scissors, by multiplicative weights played simultaneously (Freund and Schapire 1999)."""
    payoffs = torch.tensor([[0.0, -1.0, 2.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    game = matrix_game(payoffs, "multiplicative", 0.05, average=True)
    Match(game, Simultaneous(), rounds=3000).play()
    last = Exploitability(payoffs, *(player.module for player in game.players)).after(game)
    mean = Exploitability(payoffs, *(player.average for player in game.players)).after(game)
    assert mean.figures["exploitability"] < 0.03  # the bound of theory: log(3) / (η T) + η a player
    assert last.figures["exploitability"] > 0.3


entries = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))
matrices = st.one_of(
    arrays.arrays(np.float64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=entries),
    st.builds(
        lambda seed, m, n: np.random.default_rng(seed).uniform(-1, 1, (m, n)),
        seeds, st.integers(1, 30), st.integers(1, 30),
    ),
)  # fmt: skip


@settings(max_examples=40)
@given(matrices)
def test_random_matrix_games_are_solved(payoffs):
    """Entries in [-1, 1], to an exploitability of 1e-3, in 20,000 rounds at most (docs/games.md)."""
    exact, matrix = exact_solution(payoffs)[0], torch.from_numpy(payoffs)
    game = matrix_game(matrix)
    row, column = (player.module for player in game.players)
    criterion = Exploitability(matrix, row, column, every=10, tolerance=1e-3)
    match = Match(game, Extragradient(), 20_000, criterion, stop_when_stationary=True)
    match.play()
    assert match.verdict.figures["exploitability"] <= 1e-3
    p, q = strategies(game)
    assert (p @ matrix @ q).item() == pytest.approx(exact, abs=1e-3)


@settings(max_examples=3)
@given(seeds, st.integers(2, 12), st.integers(2, 12))
def test_multiplicative_weights_solve_them_by_their_averages(seed, m, n):
    payoffs = np.random.default_rng(seed).uniform(-1, 1, (m, n))
    matrix = torch.from_numpy(payoffs)
    game = matrix_game(matrix, "multiplicative", average=True)
    criterion = Exploitability(matrix, *(player.average for player in game.players), every=50, tolerance=1e-3)
    match = Match(game, Extragradient(), 10_000, criterion, stop_when_stationary=True)
    match.play()
    assert match.verdict.stationary
    p, q = (player.average().detach() for player in game.players)
    assert (p @ matrix @ q).item() == pytest.approx(exact_solution(payoffs)[0], abs=1e-3)


def test_strategies_start_uniform_and_bad_settings_are_refused():
    for n, move in itertools.product((1, 2, 7), ("projected", "multiplicative")):
        torch.testing.assert_close(MixedStrategy(n, move)().detach(), torch.full((n,), 1 / n))
    with pytest.raises(ValueError, match="at least one action"):
        MixedStrategy(0)
    with pytest.raises(ValueError, match="multiplicative"):
        MixedStrategy(3, "hedge")
    for payoffs in (torch.zeros(3), torch.zeros(0, 2), torch.tensor([[0.0, math.nan]])):
        with pytest.raises(ValueError, match="matrix of finite numbers"):
            matrix_game(payoffs)


@given(seeds, st.integers(1, 10), st.integers(1, 10), st.floats(-100, 100), st.floats(0.01, 100))
def test_the_step_size_is_blind_to_what_is_the_same_for_all_actions(seed, m, n, shift, scale):
    payoffs = normal(seed, m, n)
    shifted = scale * (payoffs + shift * normal(seed + 1, m, 1)) + shift * normal(seed + 2, 1, n)
    if min(m, n) > 1:
        assert extragradient_step(shifted) * scale == pytest.approx(extragradient_step(payoffs), rel=1e-6)


@pytest.mark.parametrize("move", ["projected", "multiplicative"])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_a_game_is_solved_at_any_scale(move, scale):
    """Rock, paper, scissors in other units: the same strategies, and the same step in their terms."""
    payoffs = torch.tensor([[0.0, -2, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) * scale
    game = matrix_game(payoffs, move)
    for player in game.players:
        player.place(
            [torch.tensor([0.7, 0.2, 0.1]).double() if move == "projected" else torch.tensor([0.7, 0.2, 0.1]).log()]
        )
    Match(game, Extragradient(), rounds=600).play()
    p, q = strategies(game)
    gain = (payoffs @ q).max() - (p @ payoffs).min()
    assert gain <= 0.01 * scale
    assert (p @ payoffs @ q).item() == pytest.approx(exact_solution(payoffs.numpy())[0], abs=0.01 * scale)


@pytest.mark.parametrize("move", ["projected", "multiplicative"])
@pytest.mark.parametrize("share", [0.0, 1e-30, -1e-37, 1e-320, 0.5, -0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_constant_matrix_every_strategy_is_an_equilibrium(move, share, dtype):
    payoffs = torch.full((3, 2), share * torch.finfo(dtype).max, dtype=dtype)
    game = matrix_game(payoffs, move)
    Match(game, Extragradient(), rounds=20).play()
    p, q = strategies(game)
    assert (p.sum().item(), q.sum().item()) == pytest.approx((1, 1))
    assert (p @ payoffs @ q).item() == pytest.approx(payoffs[0, 0].item(), rel=1e-5)
