"""AdaDFQ: adaptive data-free quantization (Qian et al., CVPR 2023, arXiv 2303.06869).

AdaSG's game with other constants: samples may be more adversarial, and the disagreement counts twice as much. These are
the ones published for CIFAR; for ImageNet the code has some for each network and its bits (low 0.3 or 0.4, disagreement
0.1 to 0.3).
"""

from dataclasses import dataclass

from zerosum.recipes import adasg
from zerosum.recipes.adasg import recipe
from zerosum.recipes.common.data_free import AsPublished

__all__ = ["Config", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Config(AsPublished, adasg.Config):
    """AdaDFQ: AdaSG with a wider band and more weight on disagreement."""

    low: float = 0.1
    """Lower end of the band in which samples are wanted, as normalised entropy of P's and Q's disagreement, 0 to 1."""
    disagreement: float = 0.2
    """Weight of the generator's disagreement loss."""
