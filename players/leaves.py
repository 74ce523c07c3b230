"""Images that nobody had to take: leaves that fell on one another, each of a colour and a texture of its own."""

import math

import torch
from torch import Tensor

from zerosum.players.backbones import InputSpace

_LEAVES = 150  # in an image, on average
_TEXTURES = 4


def dead_leaves(count: int, space: InputSpace) -> Tensor:
    """(count, channels, height, width) images in normalised input space, of the dead leaves model.

    Leaves of random places, directions and forms (ellipses, rectangles, rhombs) cover one another; their radii are
    distributed as r^-3, which gives natural images' statistics at all scales (Lee, Mumford and Huang, IJCV 2001);
    networks learn from such images what they learn first from photographs (Baradad et al., NeurIPS 2021). Here each has
    a colour out of a small palette of its image, a gradient, and a texture with a natural spectrum. All random numbers
    are torch's, on the CPU.
    """
    images = [_image(space) for _ in range(count)]
    return torch.stack(images) if images else torch.empty(0, space.channels, *space.size)


def _image(space: InputSpace) -> Tensor:
    channels, (height, width) = space.channels, space.size
    leaves = int(_LEAVES / 0.6 * (0.1 + torch.rand(()).item()))
    least, most = max(1.0, min(height, width) / 56), min(height, width) / 2.2
    radii = (least**-2 - torch.rand(leaves) * (least**-2 - most**-2)).rsqrt()
    if torch.rand(()) < 0.5:  # the small ones on top
        radii = radii.sort(descending=True).values
    palette = _colours(6, channels)
    textures = torch.cat(
        [_texture(_TEXTURES, channels, space.size), 2 * _texture(_TEXTURES, 1, space.size).expand(-1, channels, -1, -1)]
    )
    image = _colours(1, channels)[0, :, None, None] + 0.15 * torch.rand(()) * textures[0]
    places = torch.rand(leaves, 2) * torch.tensor([width, height])
    turns = torch.rand(leaves) * math.pi
    stretches = (torch.randn(leaves) / 2).exp()
    forms = torch.randint(3, (leaves,)).tolist()
    colours = palette[torch.randint(len(palette), (leaves,))] + 0.05 * torch.randn(leaves, channels)
    chosen = torch.randint(len(textures), (leaves,)).tolist()
    strengths = (0.25 * torch.rand(leaves).square()).tolist()
    gradients = (0.15 * torch.randn(leaves)).tolist()
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for leaf, ((x, y), radius, turn, stretch) in enumerate(
        zip(places.tolist(), radii.tolist(), turns.tolist(), stretches.tolist(), strict=True)
    ):
        reach = 1.5 * radius * max(stretch, 1 / stretch)
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        part = (slice(top, int(y + reach) + 1), slice(left, int(x + reach) + 1))
        across, down = columns[:, part[1]] - x, rows[part[0]] - y
        along = (math.cos(turn) * across + math.sin(turn) * down) / stretch
        aside = (math.cos(turn) * down - math.sin(turn) * across) * stretch
        cover = ((radius - _distance(forms[leaf], along, aside)) + 0.5).clamp(0, 1)
        texture = strengths[leaf] * textures[chosen[leaf]][(slice(None), *part)]
        fill = colours[leaf][:, None, None] + texture + gradients[leaf] * along / radius
        under = image[(slice(None), *part)]
        under.lerp_(fill.expand_as(under), cover)
    mean, std = (torch.tensor(values)[:, None, None] for values in (space.mean, space.std))
    return (image.clamp(0, 1) - mean) / std


def _distance(form: int, along: Tensor, aside: Tensor) -> Tensor:
    """From a leaf's centre, in the norm whose ball the leaf is."""
    if form == 0:
        return torch.hypot(along, aside)
    if form == 1:
        return 1.2 * torch.maximum(along.abs(), aside.abs())
    return along.abs() + aside.abs()


def _colours(count: int, channels: int) -> Tensor:
    """Of any brightness, of little saturation, and with something in common."""
    grey = 0.9 * torch.rand(count, 1) + 0.05
    return grey + (channels > 1) * (0.13 * torch.randn(1, channels) + 0.12 * torch.randn(count, channels))


def _texture(count: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Noise with an amplitude of 1 / frequency, mean 0, variance 1."""
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    frequency = torch.hypot(rows, columns).clamp(min=1 / max(size))
    noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn(count, channels, *size)) / frequency, s=size)
    noise = noise - noise.mean((2, 3), keepdim=True)
    return noise / noise.std((2, 3), keepdim=True).clamp(min=1e-6)
