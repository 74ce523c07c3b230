import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.zerosum.games import Point
from zerosum import Game, Player


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
