import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import normal, seeds
from zerosum.objectives import bn_alignment
from zerosum.recipes.common.prior import BatchNormPrior
from zerosum.recipes.common.synthesis import DeviationPrior


@st.composite
def moments(draw, max_layers=4):
    seed = draw(seeds)
    widths = draw(st.lists(st.integers(1, 16), min_size=1, max_size=max_layers))
    return [(normal(seed + i, width), normal(seed - i, width).square()) for i, width in enumerate(widths)]


def test_value_by_hand():
    batch = [(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])), (torch.tensor([0.0]), torch.tensor([4.0]))]
    running = [(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0])), (torch.tensor([0.0]), torch.tensor([1.0]))]
    # layers: (1 + 9)/2 + (0 + 4)/2 = 7, and 0 + 9 = 9
    assert bn_alignment(batch, running).item() == 8.0


@given(moments())
def test_zero_only_where_the_statistics_are_the_same(running):
    assert bn_alignment(running, running) == 0
    shifted = [(mean + 1, variance) for mean, variance in running]
    assert bn_alignment(shifted, running).item() == pytest.approx(1.0)


@given(moments(), seeds)
def test_symmetric_and_blind_to_the_order_of_channels(running, seed):
    batch = [(normal(seed, len(mean)), variance + 1) for mean, variance in running]
    order = [torch.randperm(len(mean), generator=torch.Generator().manual_seed(seed)) for mean, _ in running]
    value = bn_alignment(batch, running)
    torch.testing.assert_close(bn_alignment(running, batch), value)
    mixed = [[(m[o], v[o]) for (m, v), o in zip(side, order, strict=True)] for side in (batch, running)]
    torch.testing.assert_close(bn_alignment(*mixed), value)


@given(moments(max_layers=2), seeds)
def test_gradient_matches_finite_differences(running, seed):
    mean, variance = running[0]
    batch_mean = normal(seed, len(mean)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: bn_alignment([(m, variance), *running[1:]], running), batch_mean)


def test_layers_have_to_match():
    one = [(torch.zeros(2), torch.zeros(2))]
    with pytest.raises(ValueError, match="at least one layer"):
        bn_alignment([], [])
    with pytest.raises(ValueError, match="1 of the batch and 2 running"):
        bn_alignment(one, one * 2)


@pytest.mark.parametrize("form", [BatchNormPrior, DeviationPrior])
def test_of_data_such_as_the_network_has_seen_it_goes_to_zero_with_their_number(form):
    """Of means and variances, and of means and deviations summed over layers."""
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
    network = nn.Sequential(*layers, nn.BatchNorm2d(4, momentum=None))
    prior = form(network)

    def found(count):
        prior.listen()
        network(1 + 2 * torch.randn(count, 2, 8, 8))
        return prior.loss(prior.take()).item()

    with torch.no_grad():
        for _ in range(20):
            network.train()(1 + 2 * torch.randn(1000, 2, 8, 8))
        network.eval()
        assert found(5000) < min(1e-3, found(5) / 20)
