"""Pure functions of tensors: what players raise and lower."""

from zerosum.objectives.disagreement import (
    adaptability,
    adaptability_band,
    agreement,
    agreement_loss,
    calibration_loss,
    disagreement,
    disagreement_loss,
    entropy,
    half_variance,
    normalized_entropy,
)
from zerosum.objectives.patches import patch_entropy_loss, patch_similarity_entropy
from zerosum.objectives.statistics import bn_alignment

__all__ = [
    "adaptability",
    "adaptability_band",
    "agreement",
    "agreement_loss",
    "bn_alignment",
    "calibration_loss",
    "disagreement",
    "disagreement_loss",
    "entropy",
    "half_variance",
    "normalized_entropy",
    "patch_entropy_loss",
    "patch_similarity_entropy",
]
