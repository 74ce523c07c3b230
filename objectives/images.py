"""Terms on images themselves and on where they lie among others of their class, and what takes detail out of them.

Images are (N, channels, height, width).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """Scalar >= 0: norms of the differences between neighbours, to the right, below and on both diagonals; a sum of the
    four (PSAQ-ViT, ECCV 2022, after DeepInversion).

    Each norm is over the whole batch, as published, so that the value grows with the root of N: of 32 images in
    normalised input space at 224 pixels, PSAQ-ViT wants 2,500 to 3,000.
    """
    right, below = images.diff(dim=3), images.diff(dim=2)
    falling = images[..., 1:, 1:] - images[..., :-1, :-1]
    rising = images[..., :-1, 1:] - images[..., 1:, :-1]
    return torch.stack([torch.linalg.vector_norm(apart) for apart in (right, below, falling, rising)]).sum()


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Images without their fine detail, same shape and dtype: a Gaussian low pass (SynQ, ICLR 2025).

    Each frequency is multiplied by ``exp(-D² / (2 cutoff²))``, where D is its distance from that of a constant, in
    bins: cycles an image. Constants stay, and all images as the cutoff grows; at 32 pixels one of 20 or more leaves
    over half of every frequency. Edges wrap around.

    Raises:
        ValueError: ``cutoff`` is not above 0.
    """
    if not cutoff > 0:
        raise ValueError(f"the cutoff is above 0, not {cutoff}")
    wide = images.to(torch.promote_types(images.dtype, torch.float32))  # there are no transforms of bfloat16
    height, width = images.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, dtype=wide.dtype, device=wide.device)
    columns = torch.fft.rfftfreq(width, 1 / width, dtype=wide.dtype, device=wide.device)
    passed = torch.exp(-(rows[:, None].square() + columns.square()) / (2 * cutoff**2))
    return torch.fft.irfft2(torch.fft.rfft2(wide) * passed, s=(height, width)).to(images.dtype)


def cosine_margin(features: Tensor, centres: Tensor, low: float, high: float) -> Tensor:
    """Scalar >= 0: ``mean relu(low - d) + relu(d - high)`` with ``d = 1 - cos(feature, centre)``, 0 to 2: images of a
    class should be neither too alike nor too far apart (IntraQ, CVPR 2022).

    Args:
        features: (N, D).
        centres: (N, D), for each image that of its class, detached; a row of zeros is no centre yet. The mean is over
            images that have one; where none has, it is 0.
    """
    distances = 1 - F.cosine_similarity(features, centres.detach(), dim=1)
    beyond = F.relu(low - distances) + F.relu(distances - high)
    known = centres.any(dim=1)
    return (beyond * known).sum() / known.sum().clamp(min=1)
