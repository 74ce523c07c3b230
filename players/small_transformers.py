"""Small Vision Transformers, registered with timm so that they are names like any other.

``digits_vit``: ViT (Dosovitskiy et al., ICLR 2021), as timm builds it, on scikit-learn's 8×8 digits, its weights
shipped in this package (made by ``recipes/digits_teacher.py``). It has LayerNorm and no BatchNorm.
"""

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

DIGITS_WEIGHTS = Path(__file__).parent / "weights" / "digits_vit.safetensors"

# Mean and standard deviation over the pixels of the training split, as recipes/digits_teacher.py prints them.
_DIGITS = {
    "num_classes": 10,
    "input_size": (1, 8, 8),
    "fixed_input_size": True,
    "crop_pct": 1.0,
    "mean": (0.306,),
    "std": (0.376,),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "file": str(DIGITS_WEIGHTS),
}

default_cfgs = generate_default_cfgs({"digits_vit": _DIGITS})


@register_model
def digits_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Images (N, 1, 8, 8) → 16 patches of 2×2 → logits (N, num_classes)."""
    shape = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 48, "depth": 3, "num_heads": 3}
    start = {"weight_init": "jax"}  # as the authors draw them: larger at this width than timm's own
    return build_model_with_cfg(VisionTransformer, "digits_vit", pretrained, **shape | start | kwargs)
