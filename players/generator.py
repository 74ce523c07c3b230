"""The generator: images from latents and labels."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

Conditioning = Literal["embedding", "batchnorm"]


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


class ConditionalGenerator(nn.Module):
    """Latents (N, latent_dim) and labels (N,) int64 → images (N, channels, height, width) in normalised input space.

    The architecture of AdaSG's published configurations (GDFQ's, ECCV 2020): a linear map to 128 channels at a quarter
    of the image size, two nearest-neighbour doublings with a 3×3 convolution each, tanh, and a BatchNorm without affine
    parameters, which gives each channel mean 0 and variance 1 over the batch, as a network's normalised input has.

    Args:
        image_size: (height, width), both divisible by 4.
        conditioning: ``"embedding"`` multiplies the latent by a label embedding (published for CIFAR); ``"batchnorm"``
            uses class-conditional BatchNorm (published for ImageNet).

    Raises:
        ValueError: an image size not divisible by 4, or an unknown conditioning.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        channels: int = 3,
        latent_dim: int = 100,
        conditioning: Conditioning = "embedding",
    ) -> None:
        super().__init__()
        height, width = image_size
        if height % 4 or width % 4 or min(height, width) < 4:
            raise ValueError(f"the generator makes images of a size divisible by 4, not {height}x{width}")
        if conditioning not in ("embedding", "batchnorm"):
            raise ValueError(f'conditioning is "embedding" or "batchnorm", not {conditioning!r}')
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.start = (height // 4, width // 4)
        self.embedding = nn.Embedding(num_classes, latent_dim) if conditioning == "embedding" else None

        norm: Callable[..., nn.Module] = nn.BatchNorm2d
        if conditioning == "batchnorm":
            norm = partial(ConditionalBatchNorm2d, num_classes)
        self.project = nn.Linear(latent_dim, 128 * self.start[0] * self.start[1])
        # The published code passes 0.8 where BatchNorm2d takes eps; its results come with it.
        self.stages = nn.ModuleList(
            [
                norm(128),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(128, 128, 3, padding=1),
                norm(128, eps=0.8),
                nn.LeakyReLU(0.2),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(128, 64, 3, padding=1),
                norm(64, eps=0.8),
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, channels, 3, padding=1),
                nn.Tanh(),
                nn.BatchNorm2d(channels, affine=False),
            ]
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        if self.embedding is not None:
            latents = latents * self.embedding(labels)
        height, width = self.start
        x = rearrange(self.project(latents), "n (c h w) -> n c h w", h=height, w=width)
        for stage in self.stages:
            x = stage(x, labels) if isinstance(stage, ConditionalBatchNorm2d) else stage(x)
        return x
