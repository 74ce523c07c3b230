"""Random strongly convex-strongly concave quadratics: whoever must converge finds the solution of the linear system."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import normal, seeds
from tests.zerosum.games import Quadratic, position, vector_game
from zerosum import (
    Alternating,
    ConsensusOptimization,
    Extragradient,
    Lookahead,
    Match,
    Optimistic,
    Simultaneous,
    SymplecticGradientAdjustment,
)

# Of each: the rule, its step size times |J|, and the power of 1 / condition up to which the players are coupled (the
# largest singular value of B; the players' own curvatures go from 1 / condition to 1). Descent-ascent contracts only
# for η < 2a / (a² + b²) at an eigenvalue a + ib of J: with b up to 1 that is 10⁴ rounds at condition 30, so it is
# tried where the rotation is weaker, b² up to 1 / condition.
CONVERGENT = {
    "simultaneous": (Simultaneous, 1.0, 0.5),
    "alternating": (Alternating, 1.0, 0.5),
    "extragradient": (Extragradient, 0.5, 0.0),
    "optimistic": (Optimistic, 0.3, 0.0),
    "lookahead": (lambda: Lookahead(Simultaneous()), 1.0, 0.5),
    "consensus": (lambda: ConsensusOptimization(0.5), 0.5, 0.0),
    "symplectic": (lambda: SymplecticGradientAdjustment(0.5), 0.5, 0.0),
}


@pytest.mark.parametrize("name", CONVERGENT)
@settings(max_examples=3)
@given(seeds, st.integers(1, 60), st.integers(1, 60), st.floats(1, 30), st.floats(0, 1))
def test_the_solution_of_the_linear_system_is_reached(name, seed, m, n, condition, share):
    make, step, power = CONVERGENT[name]
    quadratic = Quadratic(seed, m, n, condition, share / condition**power)
    largest = torch.linalg.matrix_norm(quadratic.jacobian, 2).item()
    game = quadratic.game(step / largest)
    match = Match(game, make(), rounds=0)
    for _ in range(60):
        match.rounds += 100
        match.play()
        if (position(game) - quadratic.saddle).norm() <= 1e-7:
            break
    torch.testing.assert_close(position(game), quadratic.saddle, rtol=0, atol=1e-6)


@given(seeds, st.integers(1, 100), st.floats(0.05, 0.9))
def test_simultaneous_play_leaves_every_bilinear_game(seed, size, step):
    matrix = normal(seed + 2, size, size)
    matrix = matrix / torch.linalg.matrix_norm(matrix, 2)
    game = vector_game(lambda x, y: x @ matrix @ y, normal(seed, size), normal(seed + 1, size), step)
    distances = [position(game).norm().item()]
    for _ in range(20):
        Simultaneous().step(game, game.players)
        distances.append(position(game).norm().item())
    assert all(b > a for a, b in itertools.pairwise(distances))


@settings(max_examples=2)
@given(seeds, st.integers(1, 20))
def test_the_others_find_the_saddle_of_a_bilinear_game(seed, size):
    """All singular values 1, so that the rates are those of min-max of x·y."""
    rules = (Extragradient(), Optimistic(), Lookahead(Simultaneous()), ConsensusOptimization(1.0))
    for rule in (*rules, SymplecticGradientAdjustment(1.0)):
        matrix, _ = torch.linalg.qr(normal(seed, size, size))
        game = vector_game(lambda x, y, b=matrix: x @ b @ y, normal(seed + 1, size), normal(seed + 2, size), step=0.3)
        Match(game, rule, rounds=500).play()
        assert position(game).norm().item() < 1e-6, rule
