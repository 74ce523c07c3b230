import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from tests.strategies import normal, seeds
from tests.zerosum.games import Quadratic, position, scalar_game
from zerosum import BestResponse, DualityGap, Exploitability, Game, Match, Optimistic, Player, matrix_game


def closed_form(quadratic):
    """max_x' f(x', y) - min_y' f(x, y') at the start: both best responses solve a linear system."""
    x, y = quadratic.start[: quadratic.m], quadratic.start[quadratic.m :]
    best_x = torch.linalg.solve(quadratic.P, quadratic.B @ y + quadratic.p)
    best_y = torch.linalg.solve(quadratic.Q, -(quadratic.B.T @ x + quadratic.q))
    return best_x, best_y, (quadratic.payoff(best_x, y) - quadratic.payoff(x, best_y)).item()


@settings(max_examples=10)
@given(seeds, st.integers(1, 20), st.integers(1, 20), st.floats(1, 5), st.floats(0, 1))
def test_by_inner_optimization_it_agrees_with_the_closed_form(seed, m, n, condition, coupling):
    quadratic = Quadratic(seed, m, n, condition, coupling)
    respond = BestResponse(steps=150, optimizer=lambda p: SGD(p, 0.5, momentum=0.8))
    expected = closed_form(quadratic)[2]
    assert DualityGap(respond).after(quadratic.game(0.1)).figures["duality_gap"] == pytest.approx(expected, abs=1e-4)
    by_default = DualityGap().after(quadratic.game(0.1)).figures["duality_gap"]
    assert by_default <= expected + 1e-9  # a lower bound, whatever the budget


@given(seeds, st.integers(1, 20), st.integers(1, 20), st.floats(1, 100), st.floats(0, 3))
def test_with_responses_in_closed_form_it_is_exact_and_zero_only_at_the_saddle(seed, m, n, condition, coupling):
    quadratic = Quadratic(seed, m, n, condition, coupling)

    def respond(game, player):
        x, y, _ = closed_form(quadratic)
        player.place([x if player is game.maximizer else y])

    expected = closed_form(quadratic)[2]
    criterion = DualityGap(respond, tolerance=1e-6)
    verdict = criterion.after(quadratic.game(0.1))
    assert verdict.figures["duality_gap"] == pytest.approx(expected, rel=1e-9)
    # Strong convexity, 1/condition at least: the gap is no less than half of it times the distance squared.
    distance = (quadratic.start - quadratic.saddle).norm().item()
    assert verdict.figures["duality_gap"] >= distance**2 / condition / 2 * (1 - 1e-9) > 0

    quadratic.start = quadratic.saddle
    verdict = criterion.after(quadratic.game(0.1))
    assert verdict.figures["duality_gap"] == pytest.approx(0, abs=1e-9)
    assert verdict.stationary


def test_the_default_budget_finds_a_gap_by_hand():
    """f = -x² + xy + y² at (2, 0): best responses x' = 0 and y' = -1, f(0, 0) - f(2, -1) = 0 - (-5)."""
    game = scalar_game(lambda a, b: -a * a + a * b + b * b, 2.0, 0.0, 0.1)
    assert DualityGap().after(game).figures["duality_gap"] == pytest.approx(5.0, abs=1e-4)


@settings(max_examples=5)
@given(seeds)
def test_of_a_matrix_game_it_is_the_exploitability(seed):
    payoffs = normal(seed, 4, 3)
    game = matrix_game(payoffs)
    row, column = (player.module for player in game.players)
    Match(game, Optimistic(), rounds=3).play()
    exact = Exploitability(payoffs, row, column).after(game).figures["exploitability"]
    respond = BestResponse(steps=300, optimizer=lambda p: SGD(p, 1.0))
    assert DualityGap(respond).after(game).figures["duality_gap"] == pytest.approx(exact, abs=1e-4)


def test_private_terms_count():
    """y² as a term of y's own: the gap is what each takes off its own loss (Nikaido-Isoda). At (1, 1) of f = -x² + y:
    x wins 1 by x' = 0; y lowers y + y² from 2 to -1/4."""
    game = scalar_game(lambda a, b: -a * a + b, 1.0, 1.0, 0.1)
    game.minimizer.terms = {"square": lambda play: play[1].square().sum()}
    assert DualityGap().after(game).figures["duality_gap"] == pytest.approx(1 + 2.25, abs=1e-4)


def test_looking_leaves_no_trace_and_keeps_the_random_numbers():
    one, two = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    game = Game(
        (
            Player("one", one, SGD(one.parameters(), 0.1), "maximize"),
            Player("two", two, SGD(two.parameters(), 0.1), "minimize"),
        ),
        play=lambda z: two(one(z)),
        payoff=lambda play: play.square().mean() - play.mean(),
        sample=lambda: torch.randn(4, 3),
    )

    def state():
        return [t.clone() for m in (one, two) for t in m.state_dict().values()] + [torch.get_rng_state()]

    criterion = DualityGap(BestResponse(steps=3), probe=game.sample())
    before = state()
    first = criterion.after(game)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert criterion.after(game) == first
    assert first.figures["duality_gap"] > 0


def test_a_response_that_breaks_puts_the_player_back():
    game = scalar_game(lambda a, b: a * b, 1.0, 2.0, 0.1)

    def respond(game, player):
        player.place([torch.tensor([9.0])])
        raise RuntimeError("no closed form after all")

    with pytest.raises(RuntimeError, match="closed form"):
        DualityGap(respond).after(game)
    assert position(game).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="at least one step"):
        BestResponse(steps=0)
