"""The generator: images from latents and labels."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zerosum.players.spaces import InputSpace, image_moments

Conditioning = Literal["embedding", "batchnorm"]
_WIDTH = 128  # channels at the start
_LARGEST_START = 16  # pixels
_FEW_PIXELS = 512  # in a batch; measured on two CPU cores, 128 channels


class ConditionalBatchNorm2d(nn.Module):
    """BatchNorm whose scale and shift are looked up by class (de Vries et al., NeurIPS 2017)."""

    def __init__(self, num_classes: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.weight = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.weight.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        weight = rearrange(self.weight(labels), "n c -> n c 1 1")
        bias = rearrange(self.bias(labels), "n c -> n c 1 1")
        return weight * self.norm(x) + bias


class DoublingConv2d(nn.Conv2d):
    """Nearest-neighbour doubling followed by a 3×3 convolution, (N, C, H, W) → (N, out_channels, 2H, 2W).

    The weight is that of the 3×3 convolution. It is computed as one 4×4 transposed convolution of stride 2, which is
    the same map, borders included, in 16 instead of 36 multiply-accumulates per input pixel and pair of channels: both
    pixels of a doubled pair meet the same value, so the taps that fall on it are summed beforehand.
    """

    fold: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        # Row a: which of the three taps an input pixel meets in the a-th of the four output pixels it reaches.
        side = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("fold", torch.kron(side, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < _FEW_PIXELS * x.shape[1]:  # summing the taps costs more than it saves
            return super().forward(F.interpolate(x, scale_factor=2))
        kernel = self.fold @ rearrange(self.weight, "o i h w -> o (h w) i")
        kernel = rearrange(kernel, "o (h w) i -> i o h w", h=4)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class ConditionalGenerator(nn.Module):
    """Latents (N, latent_dim) and labels (N,) int64 → images (N, channels, height, width) in normalised input space.

    The architecture of AdaSG's published configurations (GDFQ's, ECCV 2020): a linear map to 128 channels at a fraction
    of the image size, nearest-neighbour doublings with a 3×3 convolution each, tanh, and a BatchNorm without affine
    parameters, which gives each channel mean 0 and variance 1 over the batch, as a network's normalised input has.
    Published are two doublings, at every size. Here images larger than 64 pixels take more of them, from a start of
    at most 16 pixels, and each beyond the first halves the channels (128, 64, 32, …), so that all doublings cost about
    the same: at 224 pixels 0.4 G multiply-accumulates an image, where two doublings take 2.5 G. What overhangs the
    image size is cut off.

    Args:
        image_size: (height, width).
        moments: mean and standard deviation of each of the images' channels, over a batch; default: 0 and 1.
        conditioning: ``"embedding"`` multiplies the latent by a label embedding (published for CIFAR); ``"batchnorm"``
            uses class-conditional BatchNorm (published for ImageNet).

    Raises:
        ValueError: an unknown conditioning.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        channels: int = 3,
        latent_dim: int = 100,
        conditioning: Conditioning = "embedding",
        moments: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        if conditioning not in ("embedding", "batchnorm"):
            raise ValueError(f'conditioning is "embedding" or "batchnorm", not {conditioning!r}')
        for name, values in zip(("mean", "std"), moments or (None, None), strict=True):
            value = None if values is None else torch.tensor(values)[:, None, None]
            self.register_buffer(name, value, persistent=False)
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.image_size = image_size
        doublings = max(2, math.ceil(math.log2(max(image_size) / _LARGEST_START)))
        height, width = (-(-side // 2**doublings) for side in image_size)
        self.start = (height, width)
        self.embedding = nn.Embedding(num_classes, latent_dim) if conditioning == "embedding" else None

        norm: Callable[..., nn.Module] = nn.BatchNorm2d
        if conditioning == "batchnorm":
            norm = partial(ConditionalBatchNorm2d, num_classes)
        self.project = nn.Linear(latent_dim, _WIDTH * height * width)
        stages, width_in = [norm(_WIDTH)], _WIDTH
        for doubling in range(doublings):
            width_out = _WIDTH // 2**doubling
            # The published code passes 0.8 where BatchNorm2d takes eps; its results come with it.
            stages += [DoublingConv2d(width_in, width_out), norm(width_out, eps=0.8), nn.LeakyReLU(0.2)]
            width_in = width_out
        stages += [nn.Conv2d(width_in, channels, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(channels, affine=False)]
        self.stages = nn.ModuleList(stages)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        if self.embedding is not None:
            latents = latents * self.embedding(labels)
        height, width = self.start
        x = rearrange(self.project(latents), "n (c h w) -> n c h w", h=height, w=width)
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x, labels) if isinstance(stage, ConditionalBatchNorm2d) else stage(x)
        height, width = self.image_size
        images = x[:, :, :height, :width]
        return images if self.std is None or self.mean is None else images * self.std + self.mean


def generator_of(space: InputSpace, num_classes: int, **shape: Any) -> ConditionalGenerator:
    """Of images in this space, with the moments of photographs; ``shape`` is the generator's own."""
    return ConditionalGenerator(num_classes, space.size, space.channels, moments=image_moments(space), **shape)
