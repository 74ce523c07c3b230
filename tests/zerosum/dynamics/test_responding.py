"""Play in which one player answers: the other's path, by hand, and what is remembered."""

import io
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from tests.strategies import seeds
from tests.zerosum.games import Point, Quadratic, bilinear, position, scalar_game
from zerosum import (
    Accumulate,
    BestResponse,
    During,
    Game,
    GradientNorm,
    Lookahead,
    Match,
    Optimistic,
    Player,
    Responding,
    Simultaneous,
    Watcher,
)


def answers(quadratic):
    """Both best responses of a quadratic game, in closed form, as ``respond`` wants them."""

    def respond(game, player):
        x, y = (one.module.value.detach() for one in game.players)
        if player is game.maximizer:
            player.place([torch.linalg.solve(quadratic.P, quadratic.B @ y + quadratic.p)])
        else:
            player.place([torch.linalg.solve(quadratic.Q, -(quadratic.B.T @ x + quadratic.q))])

    return respond


@settings(max_examples=30)
@given(seeds, st.integers(1, 8), st.integers(1, 8), st.floats(1, 20), st.floats(0, 2), st.sampled_from(["x", "y"]))
def test_against_exact_answers_a_gradient_step_descends_the_value_function(seed, m, n, condition, coupling, leader):
    """Danskin: with y(x) = argmin_y f, ∇ min_y f = ∇x f(x, y(x)); here the Hessian of min_y f is -(P + B Q⁻¹ Bᵀ), and
    that of max_x f is Q + Bᵀ P⁻¹ B, so that x = x* + (1 - ηH)ᵏ (x₀ - x*)."""
    quadratic = Quadratic(seed, m, n, condition, coupling)
    if leader == "x":
        curvature = quadratic.P + quadratic.B @ torch.linalg.solve(quadratic.Q, quadratic.B.T)
        own, side = slice(0, m), "minimize"
    else:
        curvature = quadratic.Q + quadratic.B.T @ torch.linalg.solve(quadratic.P, quadratic.B)
        own, side = slice(m, m + n), "maximize"
    step, rounds = 1 / torch.linalg.matrix_norm(curvature, 2).item(), 25
    game, respond = quadratic.game(step), answers(quadratic)
    follower = game.minimizer if leader == "x" else game.maximizer
    respond(game, follower)
    Match(game, Responding(respond, side), rounds).play()
    shrink = torch.linalg.matrix_power(torch.eye(len(curvature), dtype=torch.float64) - step * curvature, rounds)
    expected = quadratic.saddle[own] + shrink @ (quadratic.start[own] - quadratic.saddle[own])
    torch.testing.assert_close(position(game)[own], expected, rtol=0, atol=1e-9)
    found = follower.values()[0]
    respond(game, follower)  # it stands at its answer to where the other got to
    torch.testing.assert_close(found, follower.values()[0], rtol=0, atol=1e-12)


def test_a_round_by_hand():
    """f = x·y + y²: y answers -x/2. From (1, 1) by a step of 0.5: x = 1 + 0.5 · 1, y = -0.75, x = 1.5 - 0.375."""
    game = scalar_game(lambda x, y: x * y + y * y, 1.0, 1.0, 0.5)
    rule = Responding(lambda game, player: player.place([-game.maximizer.module.value.detach() / 2]))
    result = rule.step(game, game.players)
    assert position(game).tolist() == [1.5, -0.75]
    assert result.stake == 2.0  # where x moved from
    assert {name: loss.item() for name, loss in result.losses["x"].items()} == {"payoff": -2.0}
    rule.step(game, game.players)
    assert position(game).tolist() == [1.125, -0.5625]


@pytest.mark.parametrize("inner", [Simultaneous, lambda: Lookahead(Simultaneous(), k=2)], ids=["plain", "lookahead"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_it_answers_every_so_many_rounds_and_stays_in_between(every, inner):
    game, asked, stood = bilinear(1.0, 1.0, 0.1), [], []

    def respond(game, player):
        assert player is game.minimizer
        asked.append(game.round)
        player.place([torch.tensor(10.0 * len(asked))])

    rule = Responding(respond, every=every, inner=inner())
    for round in range(7):
        game.round = round
        rule.step(game, game.players)
        stood.append(position(game)[1].item())
    assert asked == list(range(every - 1, 7, every))
    assert stood == [10.0 * ((round + 1) // every) or 1.0 for round in range(7)]
    with pytest.raises(ValueError, match="responding: every is at least 1; got 0"):
        Responding(respond, every=0)


def test_a_best_response_by_steps_comes_to_the_closed_form():
    """The paths differ by no more than the answers do."""
    ends = []
    quadratic = Quadratic(4, 3, 5, condition=2, coupling=1)
    for respond in (answers(quadratic), BestResponse(200, lambda p: SGD(p, 0.5, momentum=0.5))):
        game = quadratic.game(0.2)
        Match(game, Responding(respond), rounds=10).play()
        ends.append(position(game))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_who_answers_uses_nothing_of_its_own():
    """Neither its schedule steps, with a warning or without, nor its optimizer, nor its transform, nor its average."""
    game = bilinear(1.0, 1.0, 0.1)
    game.minimizer.schedule = StepLR(game.minimizer.optimizer, 1, 0.5)
    game.minimizer.transform = Accumulate(5)
    game.maximizer.schedule = StepLR(game.maximizer.optimizer, 1, 0.5)
    match = Match(game, Responding(BestResponse(2, lambda p: SGD(p, 0.1))), rounds=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match.play()
    assert (game.minimizer.step_size, game.minimizer.steps) == (0.1, 0)
    assert (game.maximizer.step_size, game.maximizer.steps) == (pytest.approx(0.1 * 0.5**3), 3)
    assert game.minimizer.transform.state_dict() == {"sums": [], "taken": 0}
    # x = 1 + 0.1 · 1; y answers by steps of 0.1 and 0.05 along x: 0.15 · 1.1; and so on
    x, y = 1.0, 1.0
    for size in (0.1, 0.05, 0.025):
        x += size * y
        y -= 0.15 * x
    assert position(game).tolist() == pytest.approx([x, y])


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_it_goes_on_to_the_bit(stop):
    """Of what it answers next the count is remembered, and of the inner rule its own memory."""

    def made(rounds):
        torch.manual_seed(7)
        game = Quadratic(2, 3, 3, condition=5, coupling=1).game(0.1)
        respond = BestResponse(3, lambda p: SGD(p, 0.1))
        return game, Match(game, Responding(respond, every=3, inner=Optimistic()), rounds)

    expected, whole = made(10)
    whole.play()
    _, first = made(stop)
    first.play()
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    found, second = made(10)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.play()
    assert torch.equal(position(found), position(expected))


def lone(respond, **options):
    """Who alone answers, with the loss (y - 3)² at 1."""
    point = Point(1.0)
    one = Player("one", point, SGD(point.parameters(), 0.1), "minimize", **options)
    game = Game((one,), play=lambda _: point.value, payoff=lambda y: (y - 3).square())
    return game, Match(game, Responding(respond, every=2), rounds=4, criterion=GradientNorm())


def test_a_lone_player_may_answer():
    game, match = lone(lambda game, player: player.place([torch.tensor(3.0)]))
    rule = match.dynamics
    assert rule.step(game, game.players).stake == 4.0  # nobody moved
    result = rule.step(game, game.players)
    assert (result.stake, result.losses["one"]["payoff"].item()) == (0.0, 0.0)
    assert not result.payoff.requires_grad
    assert game.minimizer.steps == 0


def test_a_match_of_a_lone_player_that_answers():
    point_of = lambda game: game.minimizer.module.value.item()  # noqa: E731
    game, match = lone(BestResponse(200, lambda p: SGD(p, 0.25)))
    match.play()
    assert match.round == 4
    assert match.verdict.stationary
    assert point_of(game) == pytest.approx(3.0, abs=1e-9)
    game, match = lone(lambda game, player: player.place([torch.tensor(math.inf)]))
    with pytest.raises(ArithmeticError, match="round 2: the loss 'payoff' of 'one' is not finite"):
        match.play()


def test_who_sits_out_answers_nothing():
    game, asked = bilinear(1.0, 1.0, 0.5), []
    game.minimizer.sits_out = range(3)
    Match(game, Responding(lambda game, player: asked.append(game.round)), rounds=5).play()
    assert asked == [3, 4]
    assert position(game).tolist() == [3.5, 1.0]  # x alone, by 0.5 · y a round


def test_a_rule_for_some_rounds_and_another_for_all_others():
    """x steps, y answers in rounds 2 and 3, exactly: worked out by hand on f = -x²/2 + x y + y²/2, with step 1/2."""
    game = scalar_game(lambda x, y: -(x**2) / 2 + x * y + y**2 / 2, 1.0, 1.0, step=0.5)

    def respond(game, player):
        player.place([-game.maximizer.module.value.detach()])

    path = []
    watcher = Watcher()
    watcher.on_round = lambda match, record: path.append(tuple(position(game).tolist()))
    Match(game, During(range(2, 4), Responding(respond), Simultaneous()), 5, watchers=[watcher]).play()
    x, y, expected = 1.0, 1.0, []
    for round in range(5):
        step_x = x + 0.5 * (y - x)
        y = -step_x if round in (2, 3) else y - 0.5 * (x + y)
        x = step_x
        expected.append((x, y))
    assert [x for pair in path for x in pair] == pytest.approx([x for pair in expected for x in pair])


def test_what_a_response_remembers_is_in_checkpoints():
    class Counting:
        def __init__(self):
            self.calls = 0

        def __call__(self, game, player):
            self.calls += 1

        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]

    one, other = (During({0, 2}, Responding(Counting()), Simultaneous()) for _ in range(2))
    match = Match(bilinear(1.0, 1.0, 0.1), one, 3)
    match.play()
    assert one.rule.respond.calls == 2
    other.load_state_dict(match.state_dict()["dynamics"])
    assert other.rule.respond.calls == 2
