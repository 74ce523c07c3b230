"""What BatchNorm remembers is what it is given."""

import pytest
import torch
from torch import nn

from zerosum.players import BatchNormTaps, Bits, load_backbone, quantize
from zerosum.players.moments import AlignedMoments


def test_layers_are_given_the_moments_that_they_remember():
    network, images = load_backbone("digits_resnet8"), torch.randn(64, 1, 8, 8)
    before = network(images)
    taps = BatchNormTaps(network)  # which look before what is done inside: theirs is what comes
    moments = AlignedMoments(network, images)
    taps.remove()
    with moments.of(network):
        taps = BatchNormTaps(network)
        network(images)
        found, remembered = taps.take()
    for (mean, variance), (running_mean, running_var) in zip(found, remembered, strict=True):
        torch.testing.assert_close(mean, running_mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(variance, running_var, atol=1e-3, rtol=1e-3)
    taps.remove()
    assert torch.equal(network(images), before)


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
        assert not plain._forward_pre_hooks


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
