"""Rounds that come to something that is not finite, or to too much."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam

from tests.strategies import normal, seeds
from tests.zerosum.games import bilinear, position, scalar_game
from zerosum import DYNAMICS, Diverged, Game, Match, Player, Simultaneous, make_dynamics
from zerosum.player import largest_magnitude


def said(game, rounds=5, dynamics=None):
    match = Match(game, dynamics or Simultaneous(), rounds)
    with pytest.raises(Diverged) as error:
        match.play()
    assert match.broken
    assert match.round == error.value.round - 1  # the round does not count
    return str(error.value)


def test_a_loss_is_named_by_player_and_term():
    game = bilinear(1.0, 1.0, 0.1)
    game.minimizer.terms = {"fine": lambda play: play[0].sum(), "logarithm": lambda play: play[1].sum().sub(10).log()}
    assert said(game) == "round 1: the loss 'logarithm' of 'y' is not finite"


def test_the_payoff_is_named_where_no_loss_has_it():
    game = bilinear(1.0, 1.0, 0.1)
    game.maximizer.surrogate = game.minimizer.surrogate = lambda play: play[0].sum() * play[1].sum()
    game.payoff = lambda play: play[0].sum() * math.inf
    assert said(game) == "round 1: the payoff is not finite"


def test_a_gradient_is_named():
    """The square root of 0 is finite, its slope is not."""
    game = scalar_game(lambda x, y: x * y + (y - 1).abs().sqrt(), 1.0, 1.0, 0.1)
    assert said(game) == "round 1: a gradient of the loss (payoff) of 'y' is not finite"


def test_a_parameter_is_named():
    game = bilinear(1e10, 1e10, 1e300)
    assert said(game) == "round 1: value of 'x', after its step, is not finite"


def test_a_buffer_is_named():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.register_buffer("level", torch.ones(1))

        def forward(self):
            self.level *= 1e30
            return self.weight

    one, two = Counting(), nn.Linear(1, 1, bias=False)
    game = Game(
        (
            Player("one", one, SGD(one.parameters(), 0.1), "maximize"),
            Player("two", two, SGD(two.parameters(), 0.1), "minimize"),
        ),
        play=lambda _: (one(), two.weight),
        payoff=lambda play: (play[0] * play[1]).sum(),
    )
    assert said(game) == "round 2: level of 'one', after its step, is not finite"


def test_large_is_not_infinite():
    game = bilinear(1e150, 1e150, 0.1)  # the sum of what is looked at stays below 1e308
    Match(game, Simultaneous(), rounds=1).play()
    game = bilinear(1.0, 1.0, 0.1)
    game.payoff = lambda play: (play[0] * play[1]).sum() * 1.7e308  # and here it does not: -x·y + x·y
    game.maximizer.surrogate = game.minimizer.surrogate = lambda play: play[0].sum() * 1.7e308
    game.maximizer.step_scale = game.minimizer.step_scale = 0.0
    Match(game, Simultaneous(), rounds=1).play()


def test_a_player_that_runs_away_is_named_with_its_size():
    game = bilinear(1.0, 1.0, 1.0)  # |x| grows by √2 a round
    game.maximizer.growth_limit = 10
    message = said(game, rounds=50)
    assert message.startswith("round 8: 'x' runs away: its largest parameter is ")
    assert message.endswith("and was 1 at first")


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_whatever_the_dynamics(dynamics):
    assert "is not finite" in said(bilinear(1.0, 1.0, 1e200), 10, make_dynamics(dynamics, 0.1))


def test_a_step_scale_scales_whatever_the_schedule_makes_of_the_step():
    game = bilinear(1.0, 1.0, 0.4)
    game.maximizer.step_scale = game.minimizer.step_scale = 0.25
    expected = bilinear(1.0, 1.0, 0.1)
    for one in (game, expected):
        one.maximizer.schedule = torch.optim.lr_scheduler.StepLR(one.maximizer.optimizer, 1, 0.5)
        Match(one, Simultaneous(), rounds=3).play()
    torch.testing.assert_close(position(game), position(expected))
    assert game.maximizer.step_size == pytest.approx(expected.maximizer.step_size)
    assert game.maximizer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_scaled_adam_takes_smaller_steps():
    one = nn.Linear(1, 1, bias=False)
    player = Player("one", one, Adam(one.parameters(), 0.1, fused=True), "minimize")
    player.step_scale = 0.5
    before = one.weight.item()
    player.step([torch.ones(1, 1)])
    assert one.weight.item() == pytest.approx(before - 0.05, abs=1e-6)
    assert player.steepest.item() == 1


@given(
    st.lists(st.sampled_from([0, 1, 7, 2**14, 2**14 + 1]), max_size=5),
    seeds,
    st.sampled_from([None, math.nan, math.inf]),
)
def test_the_largest_magnitude_is_that_of_all_values(sizes, seed, odd):
    tensors = [normal(seed + i, size) for i, size in enumerate(sizes)]
    values = torch.cat([torch.zeros(1, dtype=torch.float64), *tensors])
    if odd is not None and values.numel() > 1:
        next(tensor for tensor in tensors if tensor.numel())[-1] = odd
        assert str(largest_magnitude(tensors).item()) == str(odd)
    else:
        assert largest_magnitude(tensors).item() == values.abs().max().item()
