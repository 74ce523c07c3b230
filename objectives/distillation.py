"""What a quantized network learns from a full-precision one besides AdaSG's calibration, and what labels ask of images.

Throughout, ``p`` are the logits of the full-precision network P, ``q`` those of the quantized network Q, both (N, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(p: Tensor, q: Tensor, temperature: float = 20.0) -> Tensor:
    """Scalar >= 0: ``T² mean KL(softmax(p / T) | softmax(q / T))``, knowledge distillation (Hinton et al., 2015).

    ``p`` is detached: this is Q's loss. GDFQ and its kin divide it by C besides, as their code averages over classes.
    """
    soft = F.log_softmax(p.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(
        F.log_softmax(q / temperature, dim=1), soft, log_target=True, reduction="batchmean"
    )


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Scalar >= 0: ``mean (1 - softmax(logits)_y)^gamma CE``: samples that are hard weigh more (Lin et al., ICCV 2017).

    HAST (CVPR 2023) has it for its images, with the gradient through the factor too. ``gamma`` 0 is cross-entropy.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    unsure = -(-losses).expm1()  # 1 - softmax(logits)_y
    return (unsure.clamp(min=torch.finfo(unsure.dtype).tiny).pow(gamma) * losses).mean()


def selective_cross_entropy(q: Tensor, p: Tensor, labels: Tensor, threshold: float = 0.5) -> Tensor:
    """Scalar >= 0: cross-entropy of ``q`` with ``labels`` where the sample's difficulty for P, ``1 - softmax(p)_y``, is
    below ``threshold``, 0 to 1, and 0 where it is not; a mean over all (SynQ, ICLR 2025)."""
    easy = -(-F.cross_entropy(p.detach(), labels, reduction="none")).expm1() < threshold
    return (F.cross_entropy(q, labels, reduction="none") * easy).mean()


def target_probability_loss(p: Tensor, labels: Tensor, targets: Tensor | float = 1.0) -> Tensor:
    """Scalar in [0, 1]: ``mean (softmax(p)_y - t)²``, of images that P is to be so sure of (IntraQ, CVPR 2022).

    Args:
        targets: (N,), or one for all, 0 to 1.
    """
    sure = F.softmax(p, dim=1).gather(1, labels[:, None]).squeeze(1)
    return (sure - targets).square().mean()
