"""AKT: advanced knowledge transfer (Hong et al., SAC 2025, arXiv 2412.19125).

AdaDFQ in which Q also attends to what P attends to: the softmax of each block's mean squares by channel, and by place.
Attentions by channel have norm 1 here, as those by place have: as published, their loss goes with the fourth power of
the features, and broke the default network. Published is a weight of 1,000, of a sum over 200 images; of the mean, as
here, that would be 200,000. A tenth weighs about as much as what Q learns from logits, on the default network.
"""

from dataclasses import dataclass

from zerosum.recipes import adadfq
from zerosum.recipes.adasg import recipe

__all__ = ["Config", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Config(adadfq.Config):
    """AKT: AdaDFQ with attention distillation."""

    attention: float = 2e4
    """Weight of the quantized network's attention distillation, by channels and places of each block's output."""
