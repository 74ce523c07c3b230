"""Terms on how a network tells the patches of an image apart."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_POINTS = 64  # at which the density is evaluated


def patch_similarity_entropy(patches: Tensor, bandwidth: float = 0.1) -> Tensor:
    """Differential entropy, in nats, of the cosine similarities between an image's patches: (N,).

    A network tells the patches of a real image apart, foreground from background, but hardly those of noise: their
    similarities are nearly equal, and the entropy is low. The density is a Gaussian kernel estimate over all pairs of
    patches, ``f(t) = mean over i < j of N(t; cos(patch_i, patch_j), bandwidth²)``, and the entropy ``-∫ f log f``
    lies between that of one kernel, ``log(bandwidth sqrt(2 pi e))``, and ``log(2 + 8 bandwidth)``. PSAQ-ViT (Li et al.,
    ECCV 2022), whose generator maximises it.

    Args:
        patches: (N, patches, channels), at least two patches.
        bandwidth: of the kernel, in units of cosine similarity.

    Raises:
        ValueError: another shape, or a bandwidth below 0.05, for which the density is not evaluated finely enough.
    """
    if patches.ndim != 3 or patches.shape[1] < 2:
        raise ValueError(f"patches have shape (N, patches, channels), at least two patches, not {tuple(patches.shape)}")
    if bandwidth < 0.05:
        raise ValueError(f"the bandwidth is 0.05 or more, not {bandwidth}")
    unit = F.normalize(patches, dim=2)
    one, other = torch.triu_indices(patches.shape[1], patches.shape[1], offset=1, device=patches.device)
    similarity = (unit @ unit.mT)[:, one, other]
    reach = 1 + 4 * bandwidth
    points = torch.linspace(-reach, reach, _POINTS, dtype=patches.dtype, device=patches.device)
    kernels = torch.exp(-0.5 * ((points - similarity[..., None]) / bandwidth).square())
    density = kernels.mean(dim=1) / (bandwidth * math.sqrt(2 * math.pi))
    density = density.clamp(min=torch.finfo(density.dtype).tiny)  # at 0 the gradient of the entropy is infinite
    return torch.trapezoid(torch.special.entr(density), points, dim=1)


def patch_entropy_loss(patches: Sequence[Tensor]) -> Tensor:
    """Scalar: minus the mean, over layers and images, of :func:`patch_similarity_entropy`.

    Args:
        patches: (N, patches, channels) of every layer.

    Raises:
        ValueError: no layers.
    """
    if not patches:
        raise ValueError("patches of at least one layer; got none")
    return -torch.stack([patch_similarity_entropy(layer).mean() for layer in patches]).mean()
