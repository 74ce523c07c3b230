"""Hypothesis strategies for tensors and bit widths."""

import torch
from hypothesis import strategies as st
from torch import Tensor

bit_widths = st.integers(2, 8)
seeds = st.integers(0, 2**31 - 1)
scales = st.sampled_from([1e-3, 0.1, 1.0, 10.0, 1e3, 1e4])


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@st.composite
def logits(draw, dtype: torch.dtype = torch.float64, max_samples: int = 8, max_scale: float = 1e4):
    """(N, C) logits, N from 1, C from 2 to 1000, of magnitudes from 1e-3 to 1e4."""
    shape = draw(st.integers(1, max_samples)), draw(st.sampled_from([2, 3, 10, 100, 1000]))
    scale = draw(scales.filter(lambda s: s <= max_scale))
    return normal(draw(seeds), *shape, dtype=dtype) * scale


@st.composite
def pairs(draw, dtype: torch.dtype = torch.float64, max_samples: int = 8, max_scale: float = 1e4):
    """Logits p and q of one shape, and labels."""
    p = draw(logits(dtype, max_samples, max_scale))
    q = normal(draw(seeds), *p.shape, dtype=dtype) * draw(scales.filter(lambda s: s <= max_scale))
    labels = torch.randint(p.shape[1], (p.shape[0],), generator=torch.Generator().manual_seed(draw(seeds)))
    return p, q, labels
