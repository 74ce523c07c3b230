"""What can be known of a quantized network without data: how far it is from P on images that neither learns from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zerosum import Match, Record, Watcher
from zerosum.objectives import half_variance
from zerosum.recipes.common.pair import Pair

DIVERGENCE = "divergence"
_AT_ONCE = 32


class HeldOut(Watcher):
    """Measures Q on images that were put aside, and keeps it as it was where it was nearest to P on them.

    Attributes:
        least: divergence of what is kept; infinite before anything is.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.least = self._newest = float("inf")
        self._images: Tensor | None = None
        self._logits: Tensor | None = None
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def put_aside(self, images: Tensor) -> None:
        """Measure on these images (N, channels, height, width) from now on. Where they are others than before, what was
        measured on those says no more which state is nearest."""
        images = images.half()
        if self._images is None or not torch.equal(images, self._images):
            self._images, self.least, self._newest = images, float("inf"), float("inf")
            self._logits = self._run(self.pair.teacher)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """``divergence``: of logits, :func:`zerosum.objectives.half_variance`, a mean; nothing before images are put
        aside."""
        if self._logits is None:
            return {}
        return {DIVERGENCE: half_variance(self._logits, self._run(self.pair.student)).mean().item()}

    def _run(self, network: torch.nn.Module) -> Tensor:
        assert self._images is not None
        dtype = next(network.parameters()).dtype
        return torch.cat([network(images.to(dtype)) for images in torch.split(self._images, _AT_ONCE)])

    def on_round(self, match: Match, record: Record) -> None:
        self._newest = (record.measured or {}).get(DIVERGENCE, self._newest)
        if self._newest < self.least:
            self.least = self._newest
            self._kept = {name: value.detach().clone() for name, value in self.pair.student.state_dict().items()}

    def restore(self) -> bool:
        """Put Q back to what is kept; False where that is how it was measured last."""
        if not self._kept or self._newest == self.least < float("inf"):
            return False
        self.pair.student.load_state_dict(self._kept)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"images": self._images, "least": self.least, "newest": self._newest, "kept": dict(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._images = self._logits = None
        self.least, self._newest, self._kept = float("inf"), float("inf"), {}
        if state and state["images"] is not None:  # a state of before may have none
            self.put_aside(state["images"].to(self.pair.device))
            self.least, self._newest, self._kept = state["least"], state["newest"], dict(state["kept"])
