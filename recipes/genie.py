"""Genie: show me the data for quantization (Jeon et al., CVPR 2023, arXiv 2212.04780).

Latents and a fresh generator for each batch of them are optimized to what P's BatchNorm layers remember, while P's
strided convolutions swing; then Q is reconstructed on the images, block by block. Published are 4,000 rounds for each
128 images (``--synthesis-rounds``) and 20,000 steps a block (``--block-steps``), with roundings that are learned
(``--rounding adaround``), the first and the last layer at 8 bits (``--first-last-bits w8a8``).
"""

from dataclasses import dataclass

from zerosum.recipes import reconstruction
from zerosum.recipes.reconstruction import Images, recipe

__all__ = ["Config", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Config(reconstruction.Config):
    """Genie: block reconstruction on images of latents and generators that are optimized to BatchNorm's statistics."""

    images: Images = "latents"
    """Where images come from; Genie's are of latents."""
    synthesis_rounds: int = 200
    """Rounds in which images are optimized, those that are made at a time. Published: 4,000."""
