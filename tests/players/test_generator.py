import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from players import ConditionalGenerator

conditionings = pytest.mark.parametrize("conditioning", ["embedding", "batchnorm"])


@conditionings
@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_images_of_any_size_divisible_by_four(conditioning, quarter_height, quarter_width, channels):
    size = 4 * quarter_height, 4 * quarter_width
    generator = ConditionalGenerator(5, size, channels, latent_dim=7, conditioning=conditioning)
    images = generator(torch.randn(6, 7), torch.arange(6) % 5)
    assert images.shape == (6, channels, *size)
    # The last BatchNorm puts them where a network's normalised input lives.
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-4, rtol=0)
    assert (images.std(dim=(0, 2, 3)) < 1.1).all()


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


def test_sizes_and_conditionings_that_cannot_be_made_are_named():
    with pytest.raises(ValueError, match="30x32"):
        ConditionalGenerator(2, (30, 32))
    with pytest.raises(ValueError, match="'film'"):
        ConditionalGenerator(2, (32, 32), conditioning="film")
