"""Random parts of images, enlarged."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ASPECT = 4 / 3  # of the crop, at most; and at least its inverse, as torchvision has it


def random_crops(count: int, least: float, share: float = 1.0, device: torch.device | None = None) -> Tensor:
    """(count, 2, 3): where :func:`cropped` looks, of each image a part of another size and place, every other one
    flipped from left to right.

    Args:
        least: share of the image's area that a part has at least, above 0, up to 1.
        share: of the images, on an average, those of which a part is seen; the others are seen whole, and not flipped.
    """
    area, aspect, x, y, flipped, chosen = torch.rand(6, count, device=device)
    area, aspect = least + (1 - least) * area, ((2 * aspect - 1) * math.log(_ASPECT)).exp()
    width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
    crops = torch.zeros(count, 2, 3, device=device)
    crops[:, 0, 0], crops[:, 0, 2] = width * torch.where(flipped < 0.5, -1, 1), (2 * x - 1) * (1 - width)
    crops[:, 1, 1], crops[:, 1, 2] = height, (2 * y - 1) * (1 - height)
    return torch.where((chosen < share)[:, None, None], crops, torch.eye(2, 3, device=device))


def cropped(images: Tensor, crops: Tensor) -> Tensor:
    """Those parts of (N, channels, height, width), as large as the images; bilinear, and differentiable."""
    with torch.autocast(images.device.type, enabled=False):  # places want more than the 8 bits of bfloat16
        grid = F.affine_grid(crops.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
