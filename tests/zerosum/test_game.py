import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam

from tests.strategies import normal, seeds
from tests.zerosum.games import Point, bilinear
from zerosum import (
    DYNAMICS,
    BestResponse,
    Diverged,
    DualityGap,
    Game,
    GradientNorm,
    Match,
    Player,
    Responding,
    Simultaneous,
    make_dynamics,
)


def player(name, side, module=None, **options):
    module = module or Point(1.0)
    return Player(name, module, SGD(module.parameters(), 0.1), side, **options)


def game(maximizer, minimizer):
    return Game((maximizer, minimizer), play=lambda _: None, payoff=lambda _: torch.zeros(()))


def test_sides_names_and_parameters_are_checked():
    with pytest.raises(ValueError, match="'up'"):
        player("x", "up")
    with pytest.raises(ValueError, match="both on side 'minimize'"):
        game(player("x", "minimize"), player("y", "minimize"))
    with pytest.raises(ValueError, match="both players are called 'x'"):
        game(player("x", "maximize"), player("x", "minimize"))
    shared = Point(1.0)
    with pytest.raises(ValueError, match="in common"):
        game(player("x", "maximize", shared), player("y", "minimize", shared))
    with pytest.raises(ValueError, match="may not be called 'payoff'"):
        player("x", "maximize", terms={"payoff": lambda _: torch.zeros(())})


def test_somebody_has_to_move():
    playing = game(player("x", "maximize", sits_out=range(2)), player("y", "minimize", sits_out=range(1)))
    assert playing.movers(1) == [playing.minimizer]
    assert playing.movers(2) == [playing.maximizer, playing.minimizer]
    with pytest.raises(ValueError, match="'x' and 'y' sit out round 0, so that nobody moves"):
        playing.movers(0)


def test_a_player_moves_what_its_optimizer_holds_and_is_not_frozen():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].bias.requires_grad_(False)
    mover = Player("x", network, SGD(network[0].parameters(), 0.1), "maximize")
    assert mover.parameters() == [network[0].weight]


def test_an_undisturbed_evaluation_leaves_no_trace():
    network = nn.BatchNorm1d(3)
    playing = Game(
        (player("x", "maximize", network), player("y", "minimize")),
        play=lambda _: network(torch.randn(5, 3) + 7),
        payoff=lambda play: play.sum(),
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with playing.undisturbed():
        assert not playing.play(None).requires_grad
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@settings(max_examples=5)
@given(seeds, st.sampled_from(["maximize", "minimize"]), st.sampled_from(["payoff", "terms", "both"]))
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_alone_a_player_moves_as_beside_one_that_sits_out(dynamics, seed, side, has):
    def value(play):
        return play.square().mean() + play.sin().sum()

    ends = []
    for accompanied in (False, True):
        torch.manual_seed(seed)
        point, dummy = Point(normal(seed, 3)), Point(0.0)
        terms = {} if has == "payoff" else {"own": value, "decay": lambda _, p=point: p.value.square().sum()}
        one = Player("one", point, Adam(point.parameters(), 0.1), side, terms=terms)
        rest = Player(
            "rest",
            dummy,
            SGD(dummy.parameters(), 0.1),
            "maximize" if side == "minimize" else "minimize",
            surrogate=lambda _, d=dummy: d.value,
            sits_out=range(6),
        )
        game = Game(
            (rest, one) if accompanied else (one,),
            play=lambda x, p=point: x @ p.value,
            payoff=None if has == "terms" else value,
            sample=lambda: torch.randn(4, 3, dtype=torch.float64),
        )
        Match(game, make_dynamics(dynamics, 0.1), rounds=6).play()
        ends.append(point.value)
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], normal(seed, 3))


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_who_sits_out_after_it_has_moved_stays(dynamics):
    game, stood = bilinear(1.0, 1.0, 0.1), []
    game.maximizer.sits_out = range(3, 12)
    match = Match(game, make_dynamics(dynamics, 0.1), rounds=3)
    for match.rounds in range(3, 14):
        match.play()
        stood.append(game.maximizer.module.value.item())
    assert set(stood[:-1]) == {stood[0]}
    assert stood[-1] != stood[0] != 1.0


def alone(value, side="minimize", payoff=True, **options):
    """Who alone moves a number, with the loss (y - 3)²."""
    point = Point(value)
    loss = lambda y: (y - 3).square()  # noqa: E731
    signed = loss if side == "minimize" else lambda y: -loss(y)
    options |= {} if payoff else {"terms": {"square": loss}}
    one = Player("one", point, SGD(point.parameters(), 0.25), side, **options)
    return Game((one,), play=lambda _: point.value, payoff=signed if payoff else None)


@pytest.mark.parametrize("payoff", [True, False])
@pytest.mark.parametrize("side", ["maximize", "minimize"])
def test_a_lone_player_lowers_its_loss_whatever_its_side(side, payoff):
    game = alone(1.0, side, payoff)
    result = Simultaneous().step(game, game.players)
    assert game.players[0].module.value.item() == 2.0  # 1 - 0.25 · 2 · (1 - 3)
    assert {name: loss.item() for name, loss in result.losses["one"].items()} == {"payoff" if payoff else "square": 4.0}
    assert result.stake == ((4.0 if side == "minimize" else -4.0) if payoff else None)


@pytest.mark.parametrize("payoff", [True, False])
@pytest.mark.parametrize("side", ["maximize", "minimize"])
def test_criteria_judge_a_lone_player(side, payoff):
    """(y - 3)² at 1: the slope is -4, and the best response takes 4 off."""
    game = alone(1.0, side, payoff)
    assert GradientNorm().after(game).figures == {"gradient_norm": 4.0}
    closed_form = DualityGap(lambda game, player: player.place([torch.tensor(3.0)]))
    assert closed_form.after(game).figures == {"duality_gap": 4.0}
    by_steps = DualityGap(BestResponse(200, lambda p: SGD(p, 0.25)))
    assert by_steps.after(game).figures["duality_gap"] == pytest.approx(4.0, abs=1e-12)
    assert game.players[0].module.value.item() == 1.0
    match = Match(alone(1.0, side, payoff), Simultaneous(), 99, GradientNorm(tolerance=0.1), stop_when_stationary=True)
    match.play()
    assert match.round == 6  # a round halves the slope, and 4 / 2⁶ is below 0.1


def test_who_plays_is_checked():
    one = player("one", "minimize", terms={"own": lambda play: play})
    for players in ((), (one, player("two", "maximize"), player("three", "minimize"))):
        with pytest.raises(ValueError, match=f"one player or two; got {len(players)}"):
            Game(players, play=lambda _: None)
    with pytest.raises(ValueError, match="'two' has nothing to lower: no payoff, no surrogate and no terms"):
        Game((one, player("two", "maximize")), play=lambda _: None)
    with pytest.raises(ValueError, match="'two' has nothing to lower"):
        Game((player("two", "maximize"),), play=lambda _: None)
    Game((one, player("two", "maximize", surrogate=lambda play: play)), play=lambda _: None)
    lone = Game((one,), play=lambda _: None)
    assert lone.minimizer is one
    assert lone.others(one) == []
    with pytest.raises(ValueError, match="'one' plays alone: nobody is to maximize"):
        lone.maximizer  # noqa: B018
    one.sits_out = range(1)
    with pytest.raises(ValueError, match="'one' sits out round 0, so that nobody moves"):
        lone.movers(0)


def test_a_lone_player_that_diverges_is_named():
    with pytest.raises(Diverged, match="round 1: the loss 'square' of 'one' is not finite"):
        Match(alone(math.inf, payoff=False), Simultaneous(), rounds=3).play()
    game = alone(1.0, payoff=False, growth_limit=10)
    game.players[0].step_scale = 6.0  # a round turns y - 3 into -2 (y - 3): y is 1, 7, -5, 19
    with pytest.raises(Diverged, match=r"round 3: 'one' runs away: its largest parameter is 19, and was 1 at first"):
        Match(game, Simultaneous(), rounds=3).play()


@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_what_is_no_scalar_is_named_with_its_shape(shape):
    game = bilinear(1.0, 1.0, 0.1)
    game.minimizer.terms = {"own": lambda play: play[1].expand(shape)}
    with pytest.raises(ValueError, match=r"the loss 'own' of 'y' has shape \(.*\); expected a scalar") as error:
        Simultaneous().step(game, game.players)
    assert str(shape) in str(error.value)
    game = bilinear(1.0, 1.0, 0.1)
    game.payoff = lambda play: (play[0] * play[1]).expand(shape)
    with pytest.raises(ValueError, match="the payoff has shape"):
        Simultaneous().step(game, game.players)
    for player in game.players:  # and where nobody's loss has it
        player.surrogate = lambda play: (play[0] * play[1]).sum()
    with pytest.raises(ValueError, match="the payoff has shape"):
        Simultaneous().step(game, game.players)


def reading(rounds):
    """A player that moves by 0.1 · round, and what the sample and the term read."""
    point, read = Point(0.0), []

    def term(play):
        read.append((play, game.round))
        return point.value * game.round

    one = Player("one", point, SGD(point.parameters(), 0.1), "minimize", terms={"annealed": term})
    game = Game((one,), play=lambda sample: sample, sample=lambda: game.round)
    return Match(game, Simultaneous(), rounds), read


def test_samples_and_terms_read_the_round():
    whole, read = reading(5)
    assert whole.game.round == 0
    whole.play()
    assert read == [(round, round) for round in range(5)]
    assert whole.game.players[0].module.value.item() == pytest.approx(-0.1 * (0 + 1 + 2 + 3 + 4))

    first, _ = reading(3)
    first.play()
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second, read = reading(5)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.game.round == 3
    second.play()
    assert read == [(3, 3), (4, 4)]
    assert torch.equal(second.game.players[0].values()[0], whole.game.players[0].values()[0])
    first.rounds = 4  # and one that is told to go on
    first.play()
    assert first.game.round == 4


def test_in_a_best_response_the_round_stays():
    game, read = bilinear(1.0, 1.0, 0.1), []
    game.minimizer.terms = {"own": lambda play: read.append(game.round) or play[1].square().sum()}
    criterion = DualityGap(BestResponse(3), every=1)
    Match(game, Responding(BestResponse(2)), rounds=4, criterion=criterion).play()
    assert read == sorted(read)
    assert set(read) == {0, 1, 2, 3}
    assert game.round == 4
