import pytest
import torch
from torch import nn

from players import BatchNormTaps


def test_moments_of_what_each_layer_was_given():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    taps = BatchNormTaps(network)
    for _ in range(2):  # taps are of the newest pass alone
        images = torch.randn(4, 2, 5, 5, requires_grad=True)
        network(images)
    assert len(taps.batch_stats) == len(taps.running_stats) == 2
    mean, variance = taps.batch_stats[0]
    torch.testing.assert_close(mean, images.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(variance, images.var(dim=(0, 2, 3), unbiased=False))
    inner = network[1](network[0](images))
    torch.testing.assert_close(taps.batch_stats[1][0], inner.mean(dim=(0, 2, 3)))
    assert taps.running_stats[1][0] is network[2].running_mean
    (gradient,) = torch.autograd.grad(taps.batch_stats[1][1].sum(), images)
    assert gradient.abs().sum() > 0


def test_a_network_without_batchnorm_is_refused():
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        BatchNormTaps(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
