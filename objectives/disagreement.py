"""What two networks' logits say about a sample: where P and Q agree, where they differ, how hard the sample is.

Source: "Rethinking Data-Free Quantization as a Zero-Sum Game" (AdaSG), AAAI 2023, arXiv 2302.09572. Throughout, ``p``
are the logits of the full-precision network P and ``q`` those of the quantized network Q, both (N, C) with C >= 2.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Floor = Literal["batch", "zero"] | Callable[[Tensor], Tensor]


def disagreement(p: Tensor, q: Tensor) -> Tensor:
    """Probabilities ``softmax(p - q)``, (N, C): mass sits on the classes that P believes in and Q does not."""
    return torch.softmax(p - q, dim=1)


def agreement(p: Tensor, q: Tensor) -> Tensor:
    """Probabilities ``softmax(p + q)``, (N, C): mass sits on the classes that P and Q both believe in."""
    return torch.softmax(p + q, dim=1)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of ``softmax(logits)`` in nats, (N,) in [0, log C]."""
    return -(torch.softmax(logits, dim=1) * torch.log_softmax(logits, dim=1)).sum(dim=1)


def normalized_entropy(logits: Tensor, *, floor: Floor = "batch") -> Tensor:
    """Entropy scaled to [0, 1], (N,): 1 for uniform probabilities.

    ``floor="batch"``, as published: ``(H - min H) / (log C - min H)`` with the minimum over the batch, so the sharpest
    sample of the batch has 0, and a batch of one has 0. ``floor="zero"``: ``H / log C``, which does not depend on the
    rest of the batch. A function of (N,) entropies gives their least where this batch is a part of a larger one
    (:func:`zerosum.ranks.least`). Where every sample is uniform the quotient 0/0 is taken as 1, its value for uniform
    samples.

    Raises:
        ValueError: ``floor`` is neither ``"batch"`` nor ``"zero"`` nor a function, or there are fewer than two classes.
    """
    if floor not in ("batch", "zero") and not callable(floor):
        raise ValueError(f'floor is "batch" or "zero", not {floor!r}')
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape (N, C) with C >= 2, not {tuple(logits.shape)}")
    values = entropy(logits)
    highest = math.log(logits.shape[1])
    least = floor if callable(floor) else torch.min if floor == "batch" else _zero
    lowest = least(values)
    span = highest - lowest
    uniform = span <= torch.finfo(values.dtype).eps * logits.shape[1]  # what rounding leaves of a span of zero
    scaled = (values - lowest) / torch.where(uniform, torch.ones_like(span), span)
    return torch.where(uniform, torch.ones_like(scaled), scaled).clamp(0, 1)


def _zero(values: Tensor) -> Tensor:
    return values.new_zeros(())


def adaptability(p: Tensor, q: Tensor, *, floor: Floor = "batch") -> Tensor:
    """Sample adaptability ``1 - H'(p - q)``, (N,) in [0, 1]: 1 where P and Q disagree sharply about one class.

    Its mean over the batch is the payoff R(G, Q) that the generator raises and the quantized network lowers.
    ``floor`` as in :func:`normalized_entropy`.
    """
    return 1 - normalized_entropy(p - q, floor=floor)


def adaptability_band(p: Tensor, q: Tensor, low: float = 0.3, high: float = 0.8, *, floor: Floor = "batch") -> Tensor:
    """Scalar >= 0 that keeps samples neither too adversarial nor too easy.

    ``mean relu(low - H') + mean relu(H' - high)``, where ``H'`` is the normalised entropy of ``softmax(p - q)``: 0
    where every sample lies within [low, high]. ``floor`` as in :func:`normalized_entropy`.
    """
    values = normalized_entropy(p - q, floor=floor)
    return F.relu(low - values).mean() + F.relu(values - high).mean()


def disagreement_loss(p: Tensor, q: Tensor, labels: Tensor) -> Tensor:
    """Scalar >= 0: cross-entropy of ``softmax(p - q)`` with ``labels`` (N,) int64; small where P alone sees them."""
    return F.cross_entropy(p - q, labels)


def agreement_loss(p: Tensor, q: Tensor, labels: Tensor) -> Tensor:
    """Scalar >= 0: cross-entropy of ``softmax(p + q)`` with ``labels`` (N,) int64; small where both see them."""
    return F.cross_entropy(p + q, labels)


def calibration_loss(p: Tensor, q: Tensor, temperature: float = 20.0) -> Tensor:
    """Scalar in [-T² log C, 0]: ``-T² mean H(softmax((p - q) / T))``, least where Q's logits are P's up to a shift.

    ``p`` is detached: this is Q's loss. Published temperatures: 20 for CIFAR, 5 for ImageNet.
    """
    return -(temperature**2) * entropy((p.detach() - q) / temperature).mean()


def half_variance(p: Tensor, q: Tensor) -> Tensor:
    """Half the variance over classes of ``p - q``, (N,) >= 0: how far Q is from P, whatever either is shifted by.

    What the losses of data-free quantization have in common: both ``T² KL(softmax(p / T) | softmax(q / T))`` and
    ``T² (log C - H(softmax((p - q) / T)))``, which is :func:`calibration_loss` but for a constant, go to it as T grows.
    """
    return (p - q).var(dim=1, correction=0) / 2
