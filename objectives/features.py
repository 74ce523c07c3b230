"""How far what two networks see inside is apart: where they attend, and how what they see hangs together.

Features are outputs of blocks, (N, channels, height, width) each; a loss takes those of P and those of Q, a tensor a
block, in one order. P's are detached, but for :func:`relation_loss`, which both sides of a game contest.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def channel_attention(features: Tensor) -> Tensor:
    """(N, channels) >= 0, of norm 1: the mean square of each channel."""
    return F.normalize(features.square().mean(dim=(2, 3)), dim=1)


def spatial_attention(features: Tensor) -> Tensor:
    """(N, height · width) >= 0, of norm 1: the mean square at each position (Zagoruyko & Komodakis, ICLR 2017)."""
    return F.normalize(rearrange(features.square().mean(dim=1), "n h w -> n (h w)"), dim=1)


def feature_alignment(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    """Scalar >= 0: mean squared difference of channel attentions; a sum over blocks (HAST, CVPR 2023).

    Raises:
        ValueError: no blocks, or unequal numbers of them.
    """
    pairs = _paired(p, q)
    terms = [F.mse_loss(channel_attention(of_q), channel_attention(of_p.detach())) for of_p, of_q in pairs]
    return torch.stack(terms).sum()


def attention_divergence(p: Sequence[Tensor], q: Sequence[Tensor], temperature: float = 8.0) -> Tensor:
    """Scalar >= 0: ``KL(softmax(a_P / T) | softmax(a_Q / T))`` of channel attentions and of spatial ones; a sum over
    both and over blocks, a mean over images (AKT, SAC 2025, which sums over images, and takes channels' mean squares as
    they are, so that its size goes with the fourth power of the features').

    Raises:
        ValueError: no blocks, or unequal numbers of them.
    """
    terms = []
    for of_p, of_q in _paired(p, q):
        for attention in (channel_attention, spatial_attention):
            soft, found = (F.log_softmax(attention(x) / temperature, dim=1) for x in (of_p.detach(), of_q))
            terms.append(F.kl_div(found, soft, log_target=True, reduction="batchmean"))
    return torch.stack(terms).sum()


def relation_loss(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    """Scalar >= 0: how far apart P and Q relate positions to each other, and channels (ZAQ, CVPR 2021).

    With F a block's features, of norm 1 over channels at each position, as a matrix of channels and positions:
    ``S = F + F softmax(Fᵀ F)ᵀ / 10`` and ``C = F + softmax(max(F Fᵀ) - F Fᵀ) F / 10``, softmax and maximum by row; mean
    absolute differences of both, summed over blocks. What both sides of a game contest: P's features have a gradient.

    Raises:
        ValueError: no blocks, or unequal numbers of them.
    """
    pairs = [zip(_relations(of_p), _relations(of_q), strict=True) for of_p, of_q in _paired(p, q)]
    return torch.stack([F.l1_loss(of_q, of_p) for pair in pairs for of_p, of_q in pair]).sum()


def class_activation_map(features: Tensor, logits: Tensor) -> Tensor:
    """(N, height, width) in 0 to 1: where a network sees the class that it believes in most (Grad-CAM; as SynQ has it).

    ``relu(sum_k a_k A_k)`` of features A, from each image's least value to its greatest; a map that is the same
    everywhere is 0. ``a_k``, the mean over places of the top logit's derivative with respect to ``A_k``, at least
    1e-10, is detached: the gradient is of first order. Two networks' maps have one size, so that nothing is upsampled.

    Args:
        features: what the logits (N, C) were computed from, in their graph, which stays.

    Raises:
        RuntimeError: the logits' graph does not have the features. Of a frozen network, it has none unless its images
            require a gradient.
    """
    top = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)
    (slopes,) = torch.autograd.grad(logits, features, top, retain_graph=True)
    weights = slopes.mean(dim=(2, 3), keepdim=True).clamp(min=1e-10)
    seen = F.relu((weights * features).sum(dim=1))
    lowest, highest = seen.amin(dim=(1, 2), keepdim=True), seen.amax(dim=(1, 2), keepdim=True)
    span = highest - lowest
    return (seen - lowest) / torch.where(span > 0, span, torch.ones_like(span))


def activation_map_loss(p_features: Tensor, p: Tensor, q_features: Tensor, q: Tensor) -> Tensor:
    """Scalar in [0, 1]: mean squared difference of :func:`class_activation_map` of P and of Q, each of its own top
    class; of one block's features and the logits (N, C) (SynQ, ICLR 2025)."""
    return F.mse_loss(class_activation_map(q_features, q), class_activation_map(p_features, p).detach())


def _relations(features: Tensor) -> tuple[Tensor, Tensor]:
    x = rearrange(F.normalize(features, dim=1), "n c h w -> n c (h w)")
    places, channels = x.mT, x @ x.mT
    # Attention of places to places, whose matrix is never held: at 112 pixels it would be 10 GB for 16 images.
    related = F.scaled_dot_product_attention(places, places, places, scale=1.0).mT
    apart = channels.amax(dim=2, keepdim=True) - channels
    return x + related / 10, x + apart.softmax(dim=2) @ x / 10


def _paired(p: Sequence[Tensor], q: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    if not p or len(p) != len(q):
        raise ValueError(f"features of as many blocks of P as of Q, at least one; got {len(p)} and {len(q)}")
    return list(zip(p, q, strict=True))
