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
from zerosum.objectives.distillation import (
    distillation_loss,
    focal_loss,
    selective_cross_entropy,
    target_probability_loss,
)
from zerosum.objectives.features import (
    activation_map_loss,
    attention_divergence,
    channel_attention,
    class_activation_map,
    feature_alignment,
    relation_loss,
    spatial_attention,
)
from zerosum.objectives.images import cosine_margin, low_pass, total_variation
from zerosum.objectives.patches import patch_entropy_loss, patch_similarity_entropy
from zerosum.objectives.statistics import bn_alignment

__all__ = [
    "activation_map_loss",
    "adaptability",
    "adaptability_band",
    "agreement",
    "agreement_loss",
    "attention_divergence",
    "bn_alignment",
    "calibration_loss",
    "channel_attention",
    "class_activation_map",
    "cosine_margin",
    "disagreement",
    "disagreement_loss",
    "distillation_loss",
    "entropy",
    "feature_alignment",
    "focal_loss",
    "half_variance",
    "low_pass",
    "normalized_entropy",
    "patch_entropy_loss",
    "patch_similarity_entropy",
    "relation_loss",
    "selective_cross_entropy",
    "spatial_attention",
    "target_probability_loss",
    "total_variation",
]
