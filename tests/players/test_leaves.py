"""Procedural images: in the input space that is asked for, and with the statistics of scales that they are made for."""

import pytest
import torch

from zerosum.players import InputSpace
from zerosum.players.leaves import dead_leaves


@pytest.mark.parametrize(("channels", "size"), [(3, (48, 48)), (1, (8, 8)), (4, (7, 30)), (3, (1, 2))])
def test_pixels_are_in_range_and_images_differ(channels, size):
    space = InputSpace(channels, size, (0.4,) * channels, (0.2,) * channels)
    images = dead_leaves(6, space)
    pixels = images * 0.2 + 0.4
    assert images.shape == (6, channels, *size)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert len({image.sum().item() for image in images}) == 6


def test_a_seed_fixes_them():
    space = InputSpace(3, (20, 24), (0.5,) * 3, (0.5,) * 3)
    one, other = (torch.manual_seed(seed) and dead_leaves(2, space) for seed in (3, 3))
    assert torch.equal(one, other)
    assert not torch.equal(one, dead_leaves(2, space))


def test_power_falls_with_frequency_as_in_photographs():
    """As 1 / f^2, within what photographs scatter (an exponent of 1.2 to 3.2: van der Schaaf, van Hateren 1996)."""
    images = dead_leaves(40, InputSpace(1, (64, 64), (0.5,), (0.25,)))
    window = torch.hann_window(64)
    power = torch.fft.fft2(images * window[:, None] * window).abs().square().mean((0, 1))
    frequency = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(64), torch.fft.fftfreq(64), indexing="ij"))
    bands = [(low, 2 * low) for low in (1 / 32, 1 / 16, 1 / 8)]
    means = torch.stack([power[(frequency >= low) & (frequency < high)].mean() for low, high in bands]).log2()
    assert ((means[:-1] - means[1:] > 1.2) & (means[:-1] - means[1:] < 3.2)).all(), means


def test_most_of_the_colour_is_brightness():
    images = dead_leaves(40, InputSpace(3, (24, 24), (0.5,) * 3, (0.5,) * 3))
    brightness = images.mean(1, keepdim=True)
    assert (images - brightness).var() < 0.5 * brightness.var()
