"""Steps that bring a share of a weight to other levels: by hand, and what holds whatever the weights."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from tests.strategies import normal, seeds
from zerosum.players import Bits, Scheme, quantize
from zerosum.players.quantization.flips import FlipFraction
from zerosum.players.quantization.layers import float_weight, weight_quantizer

SCHEMES = [Scheme(), Scheme("minmax"), Scheme("mse", "symmetric", "per-tensor"), Scheme("lsq")]
schemes = st.sampled_from(SCHEMES)


def rounded(layer, bits=4, scheme=None, seed=0):
    """A network of one rounded layer, with normally distributed parameters."""
    network = nn.Sequential(layer).double()
    for parameter in network.parameters():
        parameter.data = normal(seed, *parameter.shape)
    return quantize(network, Bits(bits, 8), scheme)


layers = st.sampled_from([lambda: nn.Linear(30, 20), lambda: nn.Conv2d(3, 8, 3), lambda: nn.ConvTranspose2d(4, 6, 3)])


def levels(quantizer, weight):
    """Those that the layer computes with."""
    with torch.no_grad():
        values = quantizer.rounded(weight).reshape(quantizer.shape)
    scale, zero_point, _ = quantizer.grid_of(weight).beside(values, quantizer.channel_axis)
    return (values / scale).round() + zero_point


def stepped(optimizer, gradients):
    (group,) = optimizer.param_groups
    for parameter, gradient in zip(group["params"], gradients, strict=True):
        parameter.grad = gradient.clone() if gradient is not None else None
    optimizer.step()


def gradients_of(network, seed, size):
    return [size * normal(seed + i, *p.shape).to(p.dtype) for i, p in enumerate(network.parameters())]


@pytest.fixture
def row():
    """Of four weights at 2 bits on the levels 0, 1, 2 and 3: its network, optimizers of step size 0.01, and a gradient
    that moves the first weight up, by 0.019 (Nesterov)."""
    network = rounded(nn.Linear(4, 1, bias=False), 2, Scheme("minmax"))
    weight = float_weight(network[0])
    weight.data = torch.tensor([[0.3, 1.2, 2.4, 3.0]], dtype=torch.float64)
    gradient = torch.tensor([[-1.0, 0, 0, 0]], dtype=torch.float64)
    return network, weight, gradient


def test_a_step_by_hand(row):
    network, weight, gradient = row
    stepped(FlipFraction(network, 0.01, 0.25), [gradient])
    # A half is 0.2 away: 10.53 times as far. Of 16, 8 and 32nds of what is between, 10.75 is the first beyond.
    torch.testing.assert_close(weight, weight.new_tensor([[0.3 + 10.75 * 0.019, 1.2, 2.4, 3.0]]))


def test_a_plain_step_that_is_enough_is_left_alone(row):
    network, weight, gradient = row
    stepped(FlipFraction(network, 0.01, 0.25), [11 * gradient])
    torch.testing.assert_close(weight, weight.new_tensor([[0.3 + 11 * 0.019, 1.2, 2.4, 3.0]]))


def test_a_share_out_of_reach_leaves_the_step_plain(row):
    network, weight, gradient = row
    stepped(FlipFraction(network, 0.01, 0.5), [gradient])  # two of four, of which one moves
    torch.testing.assert_close(weight, weight.new_tensor([[0.319, 1.2, 2.4, 3.0]]))
    network, weight, gradient = copy.deepcopy(row)
    start = weight.detach().clone()
    stepped(FlipFraction(network, 0.01, 0.25), [0 * gradient])
    assert torch.equal(weight, start)


def test_the_share_falls_with_the_step_size(row):
    network, weight, gradient = row
    optimizer = FlipFraction(network, 0.01, 0.5)
    optimizer.param_groups[0]["lr"] = 0.005  # one of four is enough
    stepped(optimizer, [gradient])
    assert 0.5 < weight[0, 0] < 0.51
    stepped(FlipFraction(network, 0.0, 0.5), [gradient])
    assert 0.5 < weight[0, 0] < 0.51


@given(layers, schemes, seeds)
def test_with_no_share_it_is_sgd(make, scheme, seed):
    network = rounded(make(), scheme=scheme, seed=seed)
    plain = copy.deepcopy(network)
    ours = FlipFraction(network, 0.1, 0.0)
    theirs = SGD(plain.parameters(), 0.1, momentum=0.9, nesterov=True, fused=True)
    for step in range(3):
        gradients = gradients_of(network, seed + 10 * step, 1.0)
        stepped(ours, gradients), stepped(theirs, gradients)
    assert all(map(torch.equal, network.parameters(), plain.parameters()))


sizes, shares = st.sampled_from([1e-8, 1e-4, 1e-2, 1.0]), st.sampled_from([1e-3, 0.02, 0.3, 1.0])


@given(layers, schemes, st.integers(2, 8), seeds, sizes, shares)
def test_steps_are_as_long_as_it_takes(make, scheme, bits, seed, size, share):
    network = rounded(make(), bits, scheme, seed)
    quantizer, weight, lr = weight_quantizer(network[0]), float_weight(network[0]), 0.1
    optimizer = FlipFraction(network, lr, share)
    buffers = {p: torch.zeros_like(p) for p in network.parameters()}
    for step in range(3):
        starts = {p: p.detach().clone() for p in network.parameters()}
        gradients = gradients_of(network, seed + 10 * step, size)
        stepped(optimizer, gradients)
        moves = {}
        for (parameter, buffer), gradient in zip(buffers.items(), gradients, strict=True):
            buffer.mul_(0.9).add_(gradient)
            moves[parameter] = -lr * (gradient + 0.9 * buffer)
            if parameter is not weight:
                torch.testing.assert_close(parameter.detach(), starts[parameter] + moves[parameter])
        start, move = starts[weight], moves[weight]

        def turned(times, start=start, move=move):
            return (levels(quantizer, start + times * move) != levels(quantizer, start)).double().mean().item()

        times = ((weight.detach() - start) * move).sum().item() / move.square().sum().item()
        torch.testing.assert_close(weight.detach(), start + times * move)  # along the plain step,
        assert times >= 1 - 1e-6  # and never shorter
        if turned(1.0) >= share:
            assert times == pytest.approx(1, rel=1e-6)
        elif times > 1 + 1e-6:
            assert turned(times * (1 + 1e-6)) >= share
            if not quantizer.follows:  # where the grid stays, more values turn over the farther they go
                assert turned(times * (31 / 32 - 1e-6)) < share
        elif not quantizer.follows:  # not even as far as the grid is wide, or half of that
            scale = quantizer.grid_of(start).beside(move.reshape(quantizer.shape), quantizer.channel_axis).scale
            assert turned(2**bits / (move.reshape(quantizer.shape) / scale).abs().max().item() / 2) < share


def test_what_has_no_gradient_stays_and_a_state_is_taken_up_exactly():
    network = rounded(nn.Linear(6, 5), scheme=Scheme("adaround"))  # learns its roundings, and its weight stays
    start = float_weight(network[0]).detach().clone()
    gradients = [None if torch.equal(p, start) else torch.ones_like(p) for p in network.parameters()]
    stepped(FlipFraction(network, 0.1, 0.5), gradients)
    assert torch.equal(float_weight(network[0]), start)

    network = rounded(nn.Linear(6, 5))
    optimizer = FlipFraction(network, 0.1, 0.3)
    stepped(optimizer, gradients_of(network, 1, 0.01))
    twin = copy.deepcopy(network)
    again = FlipFraction(twin, 0.1, 0.3)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, other in ((network, optimizer), (twin, again)):
        stepped(other, gradients_of(one, 2, 0.01))
    assert all(map(torch.equal, network.parameters(), twin.parameters()))
