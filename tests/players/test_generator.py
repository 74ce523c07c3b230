import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import seeds
from zerosum.players import ConditionalGenerator
from zerosum.players.generator import DoublingConv2d

conditionings = pytest.mark.parametrize("conditioning", ["embedding", "batchnorm"])


@conditionings
@settings(max_examples=10)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 3))
def test_images_of_any_size(conditioning, height, width, channels):
    generator = ConditionalGenerator(5, (height, width), channels, latent_dim=7, conditioning=conditioning)
    images = generator(torch.randn(6, 7), torch.arange(6) % 5)
    assert images.shape == (6, channels, height, width)


@conditionings
@pytest.mark.parametrize("size", [(8, 12), (32, 32), (96, 128)])
def test_images_have_the_moments_of_a_networks_normalised_input(conditioning, size):
    images = ConditionalGenerator(5, size, conditioning=conditioning)(torch.randn(6, 100), torch.arange(6) % 5)
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2, 3)), torch.ones(3), atol=0.1, rtol=0)


def test_large_images_take_more_doublings_of_fewer_channels():
    def convolutions(size):
        generator = ConditionalGenerator(10, size)
        return generator.start, [m.out_channels for m in generator.modules() if isinstance(m, torch.nn.Conv2d)]

    assert convolutions((32, 32)) == ((8, 8), [128, 64, 3])  # as published
    assert convolutions((64, 64)) == ((16, 16), [128, 64, 3])
    assert convolutions((224, 224)) == ((14, 14), [128, 64, 32, 16, 3])
    assert convolutions((299, 299)) == ((10, 10), [128, 64, 32, 16, 8, 3])


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), st.integers(1, 30))
def test_a_doubling_convolution_is_nearest_doubling_and_a_convolution(seed, channels_in, channels_out, height, width):
    torch.manual_seed(seed)
    layer = DoublingConv2d(channels_in, channels_out).double()
    x = torch.randn(2, channels_in, height, width, dtype=torch.float64, requires_grad=True)
    cheap, plain = layer(x), F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(cheap, plain)
    towards = torch.randn_like(plain)
    found, expected = (torch.autograd.grad((y * towards).sum(), (x, layer.weight, layer.bias)) for y in (cheap, plain))
    torch.testing.assert_close(found, expected)


@conditionings
def test_the_label_makes_a_difference_and_so_does_the_latent(conditioning):
    generator = ConditionalGenerator(3, (8, 8), conditioning=conditioning)
    if conditioning == "batchnorm":  # starts without any preference for a class
        for norm in (m for m in generator.modules() if isinstance(m, torch.nn.Embedding)):
            torch.nn.init.normal_(norm.weight)
    generator.eval()
    latents = torch.randn(2, 100)
    a = generator(latents, torch.tensor([0, 0]))
    assert not torch.allclose(a, generator(latents, torch.tensor([1, 1])))
    assert not torch.allclose(a[0], a[1])


def test_gradients_reach_every_parameter():
    for conditioning in ("embedding", "batchnorm"):
        generator = ConditionalGenerator(2, (8, 8), conditioning=conditioning)
        target = torch.randn(4, 3, 8, 8)
        (generator(torch.randn(4, 100), torch.tensor([0, 1, 0, 1])) - target).square().sum().backward()
        assert all(p.grad is not None for p in generator.parameters())


def test_a_conditioning_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="'film'"):
        ConditionalGenerator(2, (32, 32), conditioning="film")
