import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from tests.strategies import normal, seeds
from zerosum import Game, Match, Player, Simultaneous


def refused(module, optimizer, message, **options):
    with pytest.raises(ValueError, match=message):
        Player("x", module, optimizer, "maximize", **options)


def test_an_optimizer_that_moves_the_player_the_wrong_way_is_refused():
    network = nn.Linear(2, 2)
    refused(network, SGD(network.parameters(), 0.1, maximize=True), "'x': its optimizer maximizes")
    refused(network, Adam([{"params": [network.weight], "maximize": True}, {"params": [network.bias]}]), "maximizes")
    refused(network, LBFGS(network.parameters()), "'x': LBFGS evaluates the loss itself")


def test_an_optimizer_that_moves_nothing_of_the_player_is_refused():
    network = nn.Linear(2, 2)
    refused(copy.deepcopy(network), SGD(network.parameters(), 0.1), "2 of the 2 parameters .* are not its module's")
    other = nn.Linear(2, 2)
    both = SGD([*network.parameters(), other.weight], 0.1)
    refused(network, both, "1 of the 3 parameters")
    optimizer = SGD(network.parameters(), 0.1)
    network.requires_grad_(False)
    refused(network, optimizer, "no parameter in its optimizer requires a gradient")


def test_a_schedule_that_moves_nothing_of_the_player_is_refused():
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = SGD(network.parameters(), 0.1)
    refused(network, optimizer, "another optimizer's", schedule=StepLR(SGD(other.parameters(), 0.1), 1))
    refused(network, optimizer, "steps on a measurement", schedule=ReduceLROnPlateau(optimizer))


def test_a_module_in_distributed_data_parallel_is_refused(tmp_path):
    """Its reducer hears of ``.grad`` alone, so that ranks would drift apart without a word."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network = DistributedDataParallel(nn.Linear(2, 2))
        refused(network, SGD(network.parameters(), 0.1), "hand in the module inside it")
        refused(nn.Sequential(network), SGD(network.parameters(), 0.1), "hand in the module inside it")
    finally:
        torch.distributed.destroy_process_group()


class Halves(nn.Module):
    """Two vectors of three."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(normal(seed, 3)), nn.Parameter(normal(seed + 1, 3))


def halved(seed, sgd=0.1, adam=0.01, rounds=0):
    """Who lowers |a|² + a·b + |b|²: a by SGD, b by Adam, each with a schedule."""
    halves = Halves(seed)
    optimizers = SGD([halves.a], sgd), Adam([halves.b], adam)
    schedules = StepLR(optimizers[0], 1, 0.5), ExponentialLR(optimizers[1], 0.9)
    player = Player("y", halves, optimizers, "minimize", schedule=schedules)
    game = Game((player,), lambda _: (halves.a, halves.b), lambda p: (p[0] * p[0] + p[0] * p[1] + p[1] * p[1]).sum())
    return player, Match(game, Simultaneous(), rounds)


@settings(max_examples=20)
@given(seeds, st.floats(1e-3, 0.3), st.floats(1e-3, 0.3), st.integers(1, 6))
def test_each_optimizer_moves_its_own_part_by_its_own_arithmetic(seed, sgd, adam, rounds):
    player, match = halved(seed, sgd, adam, rounds)
    a, b = player.values()
    match.play()
    first, second = torch.zeros_like(b), torch.zeros_like(b)
    for t in range(1, rounds + 1):
        to_a, to_b = 2 * a + b, a + 2 * b  # both at the same point
        a = a - sgd * 0.5 ** (t - 1) * to_a
        first, second = 0.9 * first + 0.1 * to_b, 0.999 * second + 0.001 * to_b.square()  # Kingma and Ba 2015
        length = (second / (1 - 0.999**t)).sqrt() + 1e-8
        b = b - adam * 0.9 ** (t - 1) * first / (1 - 0.9**t) / length
    torch.testing.assert_close(player.values(), [a, b], rtol=1e-9, atol=1e-12)
    sizes = [optimizer.param_groups[0]["lr"] for optimizer in player.optimizers]
    assert sizes == pytest.approx([sgd * 0.5**rounds, adam * 0.9**rounds])
    assert player.step_size == sizes[0]
    assert player.steps == rounds


@given(seeds, st.floats(0, 2))
def test_a_step_scale_scales_the_steps_of_all(seed, scale):
    (whole, _), (scaled, _) = halved(seed), halved(seed)
    scaled.step_scale = scale
    start, gradients = whole.values(), [normal(seed + 2, 3), normal(seed + 3, 3)]
    whole.step(gradients)
    scaled.step(gradients)
    for before, one, other in zip(start, whole.values(), scaled.values(), strict=True):
        assert (one - before).abs().min() > 0
        torch.testing.assert_close(other - before, scale * (one - before), rtol=1e-9, atol=1e-12)


def test_several_optimizers_go_on_to_the_bit_from_what_was_saved():
    expected, whole = halved(1, rounds=7)
    whole.play()
    _, first = halved(1, rounds=3)
    first.play()
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    found, second = halved(2, sgd=9.0, rounds=7)  # what differs is taken from the file
    second.load_state_dict(torch.load(file, weights_only=True))
    second.play()
    assert all(torch.equal(a, b) for a, b in zip(expected.values(), found.values(), strict=True))
    assert found.step_size == expected.step_size


def test_several_optimizers_are_checked_as_one_is():
    halves, other = Halves(0), Halves(1)
    sgd, both = SGD([halves.a], 0.1), Adam(halves.parameters(), 0.1)
    refused(halves, [sgd, both], "'x': two of its optimizers hold a parameter in common")
    refused(halves, [sgd, Adam([other.b])], "1 of the 2 parameters .* are not its module's")
    refused(halves, [sgd, Adam([halves.b], maximize=True)], "maximizes")
    refused(halves, [sgd, LBFGS([halves.b])], "LBFGS evaluates the loss itself")
    refused(halves, [sgd, Adam([halves.b])], "another optimizer's", schedule=[StepLR(sgd, 1), StepLR(both, 1)])
    refused(halves, [], "no parameter in its optimizer requires a gradient")


def test_a_part_that_the_loss_does_not_reach_stays():
    player, _ = halved(0)
    a, b = player.values()
    player.step([torch.ones(3, dtype=torch.float64), None])
    torch.testing.assert_close(player.values()[0], a - 0.1)
    assert torch.equal(player.values()[1], b)
    assert not player.optimizers[1].state


class Watched(SGD):
    def step(self, closure=None):
        groups = [p for group in self.param_groups for p in group["params"]]
        self.alike = [p.grad.stride() == p.stride() for p in groups]
        return super().step(closure)


def test_gradients_lie_in_memory_as_their_parameters_do():
    """Fused optimizers on CUDA refuse any other, and ``backward`` leaves them so."""
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    module = nn.ParameterList([weight])
    optimizer = Watched(module.parameters(), 1.0)
    player = Player("x", module, optimizer, "minimize")
    gradient = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    expected = weight.detach() - gradient
    player.step([gradient])
    assert optimizer.alike == [True]
    torch.testing.assert_close(weight.detach(), expected)
