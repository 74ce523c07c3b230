"""Equalization keeps the function and evens ranges; what BatchNorm tells of activations, and what corrects biases."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.strategies import seeds
from zerosum.players import Bits, InputSpace, load_backbone, quantize
from zerosum.players.equalization import equalized, links_of
from zerosum.players.graph import traced
from zerosum.players.propagation import SAMPLES, correct_biases, entering, observe
from zerosum.players.quantization import Scheme
from zerosum.players.quantization.layers import float_weight, weight_quantizer

SPACE = InputSpace(3, (8, 8), (0.5,) * 3, (0.5,) * 3)


def unsettled(network, seed=0):
    """With BatchNorm layers of all kinds of channels, in eval mode."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight.data, -2, 2),
                (module.bias.data, -1, 1),
                (module.running_mean, -1, 1),
                (module.running_var, 0.01, 3),
            ):
                values.uniform_(low, high, generator=random)
    return network.eval().requires_grad_(False)


def chain(seed=0, channels=4, activation=None, depthwise=True, norm=True):
    torch.manual_seed(seed)
    activation = activation or nn.ReLU()
    norms = [nn.BatchNorm2d(channels) if norm else nn.Identity() for _ in range(2)]
    groups = channels if depthwise else 1
    return unsettled(
        nn.Sequential(
            *(nn.Conv2d(3, channels, 3, padding=1), norms[0], activation),
            *(nn.Conv2d(channels, channels, 3, groups=groups, bias=False), norms[1], activation),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)),
        ),
        seed,
    )


def relu_mobilenet():
    network = timm.create_model("mobilenetv2_035")
    for module in network.modules():
        if isinstance(getattr(module, "act", None), nn.ReLU6):
            module.act = nn.ReLU()
    return network


@pytest.mark.parametrize(
    ("make", "pairs"),
    [
        (lambda: load_backbone("digits_resnet8").eval(), 3),  # inside each block
        (lambda: unsettled(load_backbone("test_resnet", "random")), 7),
        (lambda: unsettled(relu_mobilenet()), 37),
    ],
)
def test_a_network_computes_what_it_did_and_its_pairs_reach_equally_far(make, pairs):
    network = make()
    space = InputSpace(1, (8, 8), (0.5,), (0.5,)) if pairs == 3 else InputSpace(3, (64, 64), (0.5,) * 3, (0.5,) * 3)
    state = copy.deepcopy(network.state_dict())
    found = equalized(network, space)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    images = torch.randn(2, space.channels, *space.size)
    with torch.no_grad():
        before, after = network(images), found(images)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * before.abs().max().item())
    links = list(links_of(traced(found, space)))
    assert len(links) == pairs
    for link in links:
        first, second = link.ranges()
        both = (first > 1e-3 * first.max()) & (second > 1e-3 * second.max())
        torch.testing.assert_close(first[both], second[both], rtol=1e-2, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    seeds, st.sampled_from([1, 4, 7]), st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU()]), *[st.booleans()] * 2
)
def test_any_small_network_computes_what_it_did(seed, channels, activation, depthwise, norm):
    network = chain(seed, channels, activation, depthwise, norm)
    found = equalized(network, SPACE)
    assert len(list(links_of(traced(found, SPACE)))) == 2
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(found(images), network(images), rtol=1e-4, atol=1e-5)


def test_factors_by_hand():
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).requires_grad_(False)
    network[0].weight.copy_(torch.tensor([[8.0], [-1.0]]))
    network[0].bias.copy_(torch.tensor([4.0, 1.0]))
    network[2].weight.copy_(torch.tensor([[2.0, 4.0]]))
    whole = nn.Sequential(nn.Flatten(), network)
    found = equalized(whole, InputSpace(1, (1, 1), (0.0,), (1.0,)))[1]
    torch.testing.assert_close(found[0].weight, torch.tensor([[4.0], [-2.0]]))  # s is 2 and 1 / 2
    torch.testing.assert_close(found[0].bias, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(found[2].weight, torch.tensor([[4.0, 2.0]]))


def test_rows_that_a_batchnorm_reads_reach_equally_far():
    found = equalized(chain(channels=7, depthwise=False), SPACE)
    reach = found[0].weight.abs().amax(dim=(1, 2, 3))
    torch.testing.assert_close(reach, reach.max().expand(7), rtol=1e-2, atol=0)


class Branching(nn.Module):
    """Its convolution's weight decides by the input, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.layers = chain()

    def forward(self, x):
        return self.layers(x) if x.sum() >= 0 else self.layers(-x)


class Tied(nn.Module):
    """A convolution that runs twice, and one whose weight is read beside."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(F.relu(self.first(x))))))
        return x.mean((2, 3)) * self.second.weight.sum()


class Skipping(nn.Module):
    """What lies between is read twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        return (x + self.second(x)).mean((2, 3))


@pytest.mark.parametrize(
    "make", [lambda: chain(activation=nn.ReLU6()), lambda: chain(activation=nn.SiLU()), Tied, Skipping]
)
def test_what_does_not_commute_or_is_read_elsewhere_is_no_pair(make):
    network = make().eval()
    assert [link.second for link in links_of(traced(network, SPACE))] == []
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(equalized(network, SPACE)(images), network(images))


def test_a_network_that_cannot_be_traced_is_only_copied():
    network = Branching().eval()
    assert traced(network, SPACE) is None
    found = equalized(network, SPACE)
    assert found is not network
    assert all(map(torch.equal, found.state_dict().values(), network.state_dict().values()))


def clipped_normal(mean, deviation):
    """Mean and variance of ReLU of a normal variable (the paper's appendix, b = infinity)."""
    normal = torch.distributions.Normal(0.0, 1.0)
    place = -mean / deviation
    density, above = normal.log_prob(place).exp(), 1 - normal.cdf(place)
    first = mean * above + deviation * density
    return first, (mean**2 + deviation**2) * above + mean * deviation * density - first**2


def deviations(norm):
    return norm.weight.abs() * (norm.running_var / (norm.running_var + norm.eps)).sqrt()


def test_behind_relu_moments_are_those_of_the_clipped_normal():
    network = chain(channels=7)
    samples = entering(traced(network, SPACE))
    assert samples.keys() == {"3", "8"}  # of the image nothing is known
    assert samples["3"].shape == (SAMPLES, 7, 1, 1)
    assert samples["8"].shape == (SAMPLES, 7)
    for name, norm in (("3", network[1]), ("8", network[4])):
        mean, variance = clipped_normal(norm.bias, deviations(norm))
        values = samples[name].flatten(1)
        torch.testing.assert_close(values.mean(0), mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(values.var(0), variance, rtol=2e-2, atol=1e-3)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.branch, self.branch_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.plain, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem_norm(self.stem(x))
        x = x + self.branch_norm(self.branch(x))
        return self.head(self.plain(x).mean((2, 3)))


def test_additions_sum_means_and_variances_and_a_plain_layer_ends_what_is_known():
    network = unsettled(Residual())
    samples = entering(traced(network, SPACE))
    assert samples.keys() == {"branch", "plain"}
    one, other = network.stem_norm, network.branch_norm
    values = samples["plain"].flatten(1)
    torch.testing.assert_close(values.mean(0), one.bias + other.bias, rtol=1e-3, atol=1e-3)
    both = deviations(one).square() + deviations(other).square()
    torch.testing.assert_close(values.var(0), both, rtol=0.2, atol=1e-2)


def test_samples_are_the_same_each_time_and_other_random_numbers_stay():
    graph = traced(chain(), SPACE)
    state = torch.get_rng_state()
    first, again = entering(graph), entering(graph)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_corrected_layer_has_the_mean_output_that_it_had():
    network = chain(channels=7)
    samples = entering(graph := traced(network, SPACE))
    quantized = quantize(network, Bits(3, 3), Scheme(), SPACE)
    observe(quantized, samples)
    correct_biases(quantized, graph, samples)
    wanted = F.linear(samples["8"], network[8].weight, network[8].bias).mean(0)
    with torch.no_grad():
        torch.testing.assert_close(quantized[8](samples["8"]).mean(0), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(quantized[0].bias, network[0].bias)  # nothing is known of what enters it
    # The depthwise layer has no bias, and its BatchNorm takes the shift.
    kernels = weight_quantizer(quantized[3]).rounded(float_weight(quantized[3])).sum((1, 2, 3))
    before, after = samples["3"].mean(0).flatten(), quantized[3].input_quantizer(samples["3"]).mean(0).flatten()
    shift = kernels * after - network[3].weight.sum((1, 2, 3)) * before
    torch.testing.assert_close(quantized[4].running_mean, network[4].running_mean + shift, rtol=1e-4, atol=1e-5)


def test_grids_are_laid_over_the_samples_by_the_quantizers_own_rule():
    network = chain(channels=7)
    samples = entering(traced(network, SPACE))
    quantized = quantize(network, Bits(4, 4), Scheme(activation_range="minmax"), SPACE)
    observe(quantized, samples)
    assert quantized[3].input_quantizer.low.item() == samples["3"].min().item() == 0
    assert quantized[3].input_quantizer.high.item() == samples["3"].max().item()
    assert not quantized[0].input_quantizer.observed


def test_quantiles_reach_as_far_as_is_said():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, eps=1e-12), nn.Conv2d(2, 2, 1)).eval()
    values = entering(traced(nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten()), SPACE))["0.2"]
    assert math.isclose(values.max().item(), 3.3, abs_tol=0.05)
    torch.testing.assert_close(values.mean(0).flatten(), torch.zeros(2), atol=1e-5, rtol=0)
