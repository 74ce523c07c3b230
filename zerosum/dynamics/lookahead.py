"""Lookahead: other dynamics, pulled back every few rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zerosum.dynamics.base import Dynamics, Round
from zerosum.game import Game
from zerosum.player import Player


class Lookahead(Dynamics):
    """Every ``k`` rounds of ``inner``, both players go part of the way back (Chavdarova et al., ICLR 2021).

    ``w̃' = w̃ + α (w - w̃)`` and ``w = w̃'``, with w̃ the slow weights, which start where the match does or where a player
    comes in, and w where ``inner`` has got to. Both players step back together. The optimizers' state is left as it is,
    as in the paper's algorithm 1.

    Args:
        inner: any other dynamics.
        k: rounds from one step back to the next.
        alpha: share of the way that is kept, above 0 and up to 1.

    Raises:
        ValueError: ``k`` or ``alpha`` out of range.
    """

    def __init__(self, inner: Dynamics, k: int = 5, alpha: float = 0.5) -> None:
        if k < 1 or not 0 < alpha <= 1:
            raise ValueError(f"lookahead: k is at least 1 and alpha above 0, up to 1; got {k} and {alpha}")
        self.inner, self.k, self.alpha = inner, k, alpha
        self.parts = {"inner": inner}
        self._rounds = 0
        self._slow: dict[str, list[Tensor]] = {}

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        for player in movers:
            self._slow.setdefault(player.name, player.values())
        result = self.inner.step(game, movers)
        self._rounds += 1
        if self._rounds % self.k == 0:
            for player in movers:
                self._step_back(player)
        return result

    def on_entry(self, player: Player) -> None:
        """Its slow weights start anew where it comes in."""
        self._slow.pop(player.name, None)
        super().on_entry(player)

    @torch.no_grad()
    def _step_back(self, player: Player) -> None:
        for p, slow in zip(player.parameters(), self._slow[player.name], strict=True):
            p.copy_(slow.to(p).lerp(p, self.alpha))
        player.project()
        self._slow[player.name] = player.values()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rounds": self._rounds, "slow": self._slow}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._rounds, self._slow = state["rounds"], dict(state["slow"])
