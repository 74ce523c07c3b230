"""What keeps images natural: what a trained network remembers of its own, or makes of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zerosum.objectives import bn_alignment, patch_entropy_loss
from zerosum.players import BatchNormTaps, PatchTaps, batchnorm_layers
from zerosum.ranks import moments

Moments = tuple[Tensor, Tensor]


class Prior(Protocol):
    """Reads what it needs off a network while that runs; ``name`` is its loss' in journals."""

    name: str

    def listen(self) -> None:
        """To the next forward pass."""

    def take(self) -> Any:
        """What that left, in the graph, and then forgotten."""

    def loss(self, seen: Any) -> Tensor:
        """A scalar of what :meth:`take` gave, that whoever makes the images lowers."""


class NoPrior:
    """Images are whatever their player wants; P is asked nothing."""

    name = "nothing"

    def listen(self) -> None:
        pass

    def take(self) -> None:
        return None

    def loss(self, seen: None) -> Tensor:
        return torch.zeros(())


class BatchNormPrior:
    """The running statistics of P's BatchNorm layers (:func:`zerosum.objectives.bn_alignment`).

    Raises:
        ValueError: the network has none.
    """

    name = "bn_alignment"

    def __init__(self, teacher: nn.Module) -> None:
        taps = BatchNormTaps(teacher)
        self.listen, self.take = taps.listen, taps.take

    def loss(self, seen: tuple[Sequence[Moments], Sequence[Moments]]) -> Tensor:
        batch, running = seen
        return bn_alignment(moments(batch), running)


class PatchPrior:
    """How P tells the patches of an image apart (:func:`zerosum.objectives.patch_entropy_loss`).

    Raises:
        ValueError: the network has neither attention nor LayerNorm or GroupNorm layers.
    """

    name = "patch_entropy"

    def __init__(self, teacher: nn.Module) -> None:
        taps = PatchTaps(teacher)
        self.listen, self.take = taps.listen, taps.take

    def loss(self, seen: Sequence[Tensor]) -> Tensor:
        return patch_entropy_loss(seen)


def prior_of(teacher: nn.Module) -> Prior:
    """BatchNorm's where the network has such layers, else that of patches."""
    return BatchNormPrior(teacher) if batchnorm_layers(teacher) else PatchPrior(teacher)
