import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from tests.strategies import seeds
from tests.zerosum.games import Quadratic, scalar_game
from zerosum import Game, GradientNorm, Match, Player, Simultaneous


@given(seeds, st.integers(1, 10), st.integers(1, 10))
def test_it_is_the_length_of_the_field(seed, m, n):
    quadratic = Quadratic(seed, m, n, condition=10, coupling=1)
    verdict = GradientNorm().after(quadratic.game(0.1))
    assert verdict.figures["gradient_norm"] == pytest.approx(quadratic.field(quadratic.start).norm().item(), rel=1e-9)
    assert not verdict.stationary
    quadratic.start = quadratic.saddle
    assert GradientNorm(tolerance=1e-9).after(quadratic.game(0.1)).stationary


def test_a_projected_player_at_its_wall_is_at_rest():
    """f = x + y²: x wants to go up for ever, and may up to 1."""

    def game(x):
        return scalar_game(lambda a, b: a + b * b, x, 0.0, 0.1, projection=lambda value: value.clamp(max=1.0))

    assert GradientNorm().after(game(1.0)).figures == {"gradient_norm": 0.0}
    assert GradientNorm().after(game(0.5)).figures == {"gradient_norm": 0.5}  # to the wall it is nearer than g = 1
    assert GradientNorm().after(game(-3.0)).figures == {"gradient_norm": 1.0}


def test_it_stops_a_match_and_says_why():
    quadratic = Quadratic(0, 3, 3, condition=2, coupling=0.5)
    criterion = GradientNorm(every=10, tolerance=1e-5)
    match = Match(quadratic.game(0.3), Simultaneous(), 10_000, criterion, stop_when_stationary=True)
    match.play()
    assert match.round < 10_000
    assert match.verdict.reason.startswith("gradient norm")
    assert match.verdict.reason.endswith("within 1e-05")


def test_looking_leaves_no_trace():
    one, two = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 1)
    game = Game(
        (
            Player("one", one, SGD(one.parameters(), 0.1), "maximize"),
            Player("two", two, SGD(two.parameters(), 0.1), "minimize"),
        ),
        play=lambda z: two(one(z)),
        payoff=lambda play: play.mean(),
        sample=lambda: torch.randn(4, 3),
    )
    criterion = GradientNorm(probe=game.sample())
    before = [t.clone() for m in (one, two) for t in m.state_dict().values()]
    rng = torch.get_rng_state()
    criterion.after(game)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (t for m in (one, two) for t in m.state_dict().values()), strict=True)
    )
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for m in (one, two) for p in m.parameters())
    with pytest.raises(ValueError, match="tolerance at least 0"):
        GradientNorm(tolerance=-1.0)
