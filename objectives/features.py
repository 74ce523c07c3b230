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
