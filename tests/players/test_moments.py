"""What BatchNorm remembers is what it is given."""

import pytest
import torch
from torch import nn

from zerosum.players import Bits, load_backbone, quantize
from zerosum.players.moments import AlignedMoments
from zerosum.players.statistics import batchnorm_layers


def test_layers_give_what_they_give_of_what_they_remember():
    network, images = load_backbone("digits_resnet8"), torch.randn(64, 1, 8, 8)
    before, state = network(images), {name: value.clone() for name, value in network.state_dict().items()}
    layers, given = batchnorm_layers(network), []
    moments = AlignedMoments(network, images)
    handles = [layer.register_forward_hook(lambda layer, _, y: given.append((layer, y))) for layer in layers]
    with moments.of(network):
        network(images)
    assert len(given) == len(layers)
    for layer, y in given:
        share = state_var(state, network, layer) / (state_var(state, network, layer) + layer.eps)
        torch.testing.assert_close(y.mean((0, 2, 3)), layer.bias, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(y.var((0, 2, 3), correction=0), layer.weight**2 * share, atol=1e-3, rtol=1e-3)
    for handle in handles:
        handle.remove()
    assert torch.equal(network(images), before)


def state_var(state, network, layer):
    """What a layer remembered of the variance before."""
    (name,) = (name for name, module in network.named_modules() if module is layer)
    return state[f"{name}.running_var"]


def test_a_channel_is_scaled_by_four_at_most():
    network = nn.Sequential(nn.BatchNorm2d(2, eps=1e-5)).eval()
    images = torch.randn(64, 2, 8, 8) * torch.tensor([0.01, 100.0]).reshape(2, 1, 1) + 3
    expected = (images - images.mean((0, 2, 3), keepdim=True)) * torch.tensor([4.0, 0.25]).reshape(2, 1, 1)
    with AlignedMoments(network, images).of(network):
        torch.testing.assert_close(network(images), expected / (1 + 1e-5) ** 0.5, atol=1e-3, rtol=1e-4)


def test_a_channel_that_says_nothing_is_not_blown_up():
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    images = torch.stack([torch.full((8, 4, 4), 3.0), torch.randn(8, 4, 4)], dim=1)
    with AlignedMoments(network, images).of(network):
        output = network(images)
    assert output[:, 0].abs().max() < 1e-4
    torch.testing.assert_close(output[:, 1].std(), torch.tensor(1.0), atol=0.01, rtol=0)


def test_copies_are_changed_alike_and_networks_without_batchnorm_not_at_all():
    network, images = load_backbone("digits_resnet8"), torch.randn(16, 1, 8, 8)
    copy = quantize(network, Bits(32, 32))
    with AlignedMoments(network, images).of(network, copy):
        assert torch.equal(network(images), copy(images))
    plain = nn.Sequential(nn.Conv2d(1, 2, 3))
    with AlignedMoments(plain, images).of(plain):
        assert torch.equal(plain(images), plain[0](images))


@pytest.mark.parametrize("by_name", [False, True])
def test_layers_called_by_keyword(by_name):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(input=x) if by_name else self.norm(x)

    network, images = Network().eval(), 5 + 2 * torch.randn(32, 3, 8, 8)
    with AlignedMoments(network, images).of(network):
        output = network(images)
    torch.testing.assert_close(output.mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
