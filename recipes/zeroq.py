"""ZeroQ: a novel zero shot quantization framework (Cai et al., CVPR 2020, arXiv 2001.00281).

Pixels are optimized until they look to P like what its BatchNorm layers remember; the ranges of Q's activations are
observed on them. Nothing is learned. Published are the moments of each image, where these are of a batch; distances
that are summed over channels, where these are means (as Genie's are); and 64 images in one batch, with ranges from
their extremes (``--activation-range minmax``).
"""

from dataclasses import dataclass

from zerosum.recipes import reconstruction
from zerosum.recipes.reconstruction import Images, recipe

__all__ = ["Config", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Config(reconstruction.Config):
    """ZeroQ: ranges of activations, observed on pixels that are optimized to BatchNorm's statistics."""

    images: Images = "pixels"
    """Where images come from; ZeroQ's are pixels."""
    rounds: int | None = 0
    """How often all blocks are reconstructed on them, which ZeroQ does not."""

    def check(self) -> None:
        super().check()
        if self.rounds == 0:
            self.refuse("no blocks are reconstructed in 0 rounds", "block_steps")
