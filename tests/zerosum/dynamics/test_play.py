"""What a round is: who moves, on which play, along whose gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam

from tests.zerosum.games import bilinear, position, saddle, scalar_game
from zerosum import Alternating, Game, Lookahead, Match, Player, Simultaneous


@settings(max_examples=5)
@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 3), st.integers(1, 3))
def test_both_rules_find_a_strong_saddle(x, y, max_steps, min_steps):
    for rule in (Simultaneous(), Alternating(max_steps, min_steps)):
        game = saddle(x, y, step=0.1)
        Match(game, rule, rounds=200).play()
        torch.testing.assert_close(position(game), torch.tensor([0.8, 0.6], dtype=torch.float64), atol=1e-9, rtol=0)


def test_alternating_takes_its_steps_in_order_and_number():
    game = bilinear(1.0, 1.0, 0.5)
    Alternating(max_steps=2, min_steps=1).step(game, game.players)
    # x: 1 → 1.5 → 2, then y: 1 - 0.5 · 2
    assert position(game).tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="at least one step"):
        Alternating(max_steps=0)


def test_any_optimizer_takes_its_own_step():
    game = scalar_game(lambda a, b: a * b, 1.0, 1.0, 0.25, optimizer=Adam)
    Simultaneous().step(game, game.players)
    torch.testing.assert_close(position(game), torch.tensor([1.25, 0.75], dtype=torch.float64))  # Adam's first: ±lr


def test_a_surrogate_takes_the_payoffs_place_and_terms_add():
    game = scalar_game(
        lambda a, b: a * b,
        1.0,
        3.0,
        0.1,
        surrogate=lambda play: -2 * play[0].sum(),
        terms={"decay": lambda play: play[0].square().sum()},
    )
    result = Simultaneous().step(game, game.players)
    # x lowers -2x + x²: gradient 0 at 1. y lowers the payoff: gradient x.
    assert position(game).tolist() == [1.0, pytest.approx(2.9)]
    assert result.payoff.item() == 3.0
    assert {name: value.item() for name, value in result.losses["x"].items()} == {"surrogate": -2.0, "decay": 1.0}
    assert {name: value.item() for name, value in result.losses["y"].items()} == {"payoff": 3.0}


class Counting(nn.Module):
    """A layer that counts its forward passes, and the gradients that its weight is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.forwards = self.gradients = 0
        self.layer.weight.register_hook(self._count)

    def _count(self, gradient):
        self.gradients += 1

    def forward(self, x):
        self.forwards += 1
        return self.layer(x)


@pytest.fixture
def teaching():
    """As in AdaSG: the maximizer's output goes through a frozen network and the minimizer."""
    generator, student, teacher = Counting(), Counting(), nn.Linear(4, 4)
    teacher.requires_grad_(False)

    def play(latents):
        x = generator(latents)
        return teacher(x), student(x)

    game = Game(
        players=(
            Player("generator", generator, SGD(generator.parameters(), 0.1), "maximize"),
            Player("student", student, SGD(student.parameters(), 0.1), "minimize"),
        ),
        play=play,
        payoff=lambda play: (play[0] - play[1]).square().mean(),
        sample=lambda: torch.randn(8, 4),
    )
    return game, generator, student, teacher


def test_simultaneous_play_runs_each_network_once_and_asks_for_each_gradient_once(teaching):
    game, generator, student, teacher = teaching
    Simultaneous().step(game, game.players)
    assert (generator.forwards, student.forwards) == (1, 1)
    assert (generator.gradients, student.gradients) == (1, 1)
    for network in (generator, student, teacher):
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("rule", [Simultaneous(), Alternating()], ids=["simultaneous", "alternating"])
@pytest.mark.parametrize("mover", [0, 1], ids=["maximizer", "minimizer"])
def test_who_does_not_move_is_given_no_gradient_and_stays(teaching, rule, mover):
    game, *networks, _ = teaching
    moving, resting = networks[mover], networks[1 - mover]
    before = resting.layer.weight.clone(), moving.layer.weight.clone()
    rule.step(game, [game.players[mover]])
    assert (moving.gradients, resting.gradients) == (1, 0)
    assert resting.layer.weight.grad is None
    assert resting.layer.weight.requires_grad
    assert torch.equal(resting.layer.weight, before[0])
    assert not torch.equal(moving.layer.weight, before[1])


def test_both_gradients_are_taken_at_the_same_point(teaching):
    game, generator, student, _ = teaching
    torch.manual_seed(1)
    payoff = game.payoff(game.play(game.sample()))
    expected = torch.autograd.grad(payoff, [generator.layer.weight, student.layer.weight])
    before = generator.layer.weight.clone(), student.layer.weight.clone()
    torch.manual_seed(1)
    Simultaneous().step(game, game.players)
    torch.testing.assert_close(generator.layer.weight, before[0] + 0.1 * expected[0])
    torch.testing.assert_close(student.layer.weight, before[1] - 0.1 * expected[1])


def test_lookahead_starts_anew_where_a_player_comes_in():
    """y is put to 5 when it comes in, and stays there with a step of 0: nothing may pull it back to where it was."""
    game = scalar_game(lambda a, b: a * b, 1.0, 1.0, 0.0)
    game.minimizer.sits_out = range(3)
    game.minimizer.on_entry = lambda: game.minimizer.place([torch.tensor([5.0])])
    Match(game, Lookahead(Lookahead(Simultaneous(), k=2), k=2), rounds=8).play()
    assert position(game).tolist() == [1.0, 5.0]
