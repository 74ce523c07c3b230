"""What one evaluation of a pair gives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Play(NamedTuple):
    """One evaluation: images (N, channels, height, width) in normalised input space; labels (N,), or probabilities of
    classes (N, C), as the source has them; logits (N, C) of P and Q; what the prior took of P; and, where that is asked
    for, what blocks of P and of Q give."""

    images: Tensor
    labels: Tensor
    p: Tensor
    q: Tensor
    seen: Any
    p_features: Sequence[Tensor] = ()
    q_features: Sequence[Tensor] = ()
