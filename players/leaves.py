"""Images that nobody had to take: leaves that fell on one another, each of a colour and a texture of its own."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from zerosum.players.backbones import InputSpace

_LEAVES = 150  # in an image, on average
_TEXTURES = 4
_TILE = 64  # pixels: of a larger part of an image, few leaves lie on most


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
    count = int(_LEAVES / 0.6 * (0.1 + torch.rand(()).item()))
    least, most = max(1.0, min(height, width) / 56), min(height, width) / 2.2
    radii = (least**-2 - torch.rand(count) * (least**-2 - most**-2)).rsqrt()
    if torch.rand(()) < 0.5:  # the small ones on top
        radii = radii.sort(descending=True).values
    palette = _colours(6, channels)
    textures = torch.cat(
        [_texture(_TEXTURES, channels, space.size), 2 * _texture(_TEXTURES, 1, space.size).expand(-1, channels, -1, -1)]
    )
    ground = _colours(1, channels)[0, :, None, None] + 0.15 * torch.rand(()) * textures[0]
    leaves = _Leaves.fallen(radii, space, palette, len(textures))
    image = torch.empty_like(ground)
    for top, left in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        part = (slice(None), slice(top, top + _TILE), slice(left, left + _TILE))
        image[part] = leaves.on(ground[part], textures[(slice(None), *part)], top, left)
    mean, std = (torch.tensor(values)[:, None, None] for values in (space.mean, space.std))
    return (image.clamp(0, 1) - mean) / std


class _Leaves(NamedTuple):
    """(leaves,) of each, the uppermost first; lengths in pixels."""

    x: Tensor
    y: Tensor
    radius: Tensor
    turn: Tensor
    stretch: Tensor
    form: Tensor
    colour: Tensor  # (leaves, channels)
    texture: Tensor
    strength: Tensor
    gradient: Tensor

    @classmethod
    def fallen(cls, radii: Tensor, space: InputSpace, palette: Tensor, textures: int) -> "_Leaves":
        """Leaves of these radii, the first of which fell first."""
        count = len(radii)
        places = torch.rand(count, 2) * torch.tensor(space.size[::-1])
        turns = torch.rand(count) * math.pi
        stretches = (torch.randn(count) / 2).exp()
        forms = torch.randint(3, (count,))
        colours = palette[torch.randint(len(palette), (count,))] + 0.05 * torch.randn(count, palette.shape[1])
        chosen = torch.randint(textures, (count,))
        strengths = 0.25 * torch.rand(count).square()
        gradients = 0.15 * torch.randn(count)
        drawn = (*places.unbind(1), radii, turns, stretches, forms, colours, chosen, strengths, gradients)
        return cls(*(values.flip(0) for values in drawn))

    def on(self, ground: Tensor, textures: Tensor, top: int, left: int) -> Tensor:
        """A part of an image, (channels, height, width), from this row and column on, that lay bare before; of the
        textures, (textures, channels, height, width), the same part."""
        rows = torch.arange(top, top + ground.shape[1])[:, None]
        columns = torch.arange(left, left + ground.shape[2])[None]
        reach = 1.5 * self.radius * torch.maximum(self.stretch, 1 / self.stretch)
        beside = (self.x + reach < columns[0, 0]) | (self.x - reach > columns[0, -1])
        beyond = (self.y + reach < rows[0, 0]) | (self.y - reach > rows[-1, 0])
        near = _Leaves(*(values[~(beside | beyond)] for values in self))
        x, y, radius, turn, stretch, form = (values[:, None, None] for values in near[:6])
        across, down = columns - x, rows - y
        along = (turn.cos() * across + turn.sin() * down) / stretch
        aside = (turn.cos() * down - turn.sin() * across) * stretch
        cover = (radius - _distance(form, along, aside) + 0.5).clamp_(0, 1)
        light = torch.cat([torch.ones(1, *cover.shape[1:]), 1 - cover]).cumprod(0)  # that comes through to each
        seen = cover * light[:-1]
        tinted = torch.zeros(len(textures), *cover.shape[1:])
        tinted.index_add_(0, near.texture, seen * near.strength[:, None, None])
        shade = (seen * along * (near.gradient / near.radius)[:, None, None]).sum(0)
        fill = torch.einsum("lhw,lc->chw", seen, near.colour) + torch.einsum("thw,tchw->chw", tinted, textures)
        return light[-1] * ground + fill + shade


def _distance(form: Tensor, along: Tensor, aside: Tensor) -> Tensor:
    """From a leaf's centre, in the norm whose ball the leaf is."""
    along, aside = along.abs(), aside.abs()
    straight = torch.where(form == 1, 1.2 * torch.maximum(along, aside), along + aside)
    return torch.where(form == 0, torch.hypot(along, aside), straight)


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
    return noise / noise.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-6)
