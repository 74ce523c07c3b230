"""What Q has learned already, learned again while it plays, or it would forget it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from zerosum import Term, Watcher
from zerosum.ranks import share
from zerosum.recipes.common.pair import Pair


class Rehearsal(Watcher):
    """Images such as Q's blocks were reconstructed on, and what P makes of them: procedural ones, which stay, and those
    that :meth:`put` adds, which a resumed match finds again.

    Args:
        procedural: (N, channels, height, width) in normalised input space.
        batch_size: images a round.
        arithmetic: in which networks compute while they play.
    """

    def __init__(
        self,
        pair: Pair,
        procedural: Tensor,
        batch_size: int,
        arithmetic: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.pair, self.batch_size, self._arithmetic = pair, batch_size, arithmetic
        self._procedural = procedural

    @torch.no_grad()
    def put(self, made: Tensor) -> None:
        """These images, beside the procedural ones."""
        self._made = made.half()
        self._images = torch.cat([self._procedural, self._made.to(self._procedural)])
        with self._arithmetic():
            batches = torch.split(self._images, self.batch_size)
            self._logits = torch.cat([self.pair.teacher(images).float() for images in batches])

    def term(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Term:
        """``loss`` of the logits of P and Q on a batch of the images; for Q."""

        def rehearse(play: Any) -> Tensor:
            chosen = torch.randint(len(self._images), (share(self.batch_size),), device=self._images.device)
            with self._arithmetic():
                found = self.pair.student(self._images[chosen])
            return loss(self._logits[chosen], found.float())

        return rehearse

    def state_dict(self) -> dict[str, Any]:
        return {"made": self._made}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:  # a match of before may have had none
            self.put(state["made"].to(self.pair.device))
