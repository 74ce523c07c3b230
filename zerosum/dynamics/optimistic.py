"""Optimistic gradient play: extragradient at the price of one evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zerosum.dynamics.base import Dynamics, Round, evaluate
from zerosum.game import Game
from zerosum.player import Player


class Optimistic(Dynamics):
    """Each player steps as if the next gradient were this one again (Popov 1980; Daskalakis et al., ICLR 2018).

    ``w' = w - 2η F(w) + η F(w⁻)``, with w⁻ the point before; ``F(w⁻) = 0`` in a player's first round. One play a
    round.

    As in Optimistic Adam (Daskalakis et al., algorithm 1) the optimizer's own update Δ stands for ``-η F``, so momentum
    and moments take up each gradient once: ``w' = w + 2Δ - Δ⁻``. It is computed as ``b' = b + Δ``, ``w' = b' + Δ``,
    with both points projected: for a player with a projection, optimistic gradient as in Wei et al. (ICLR 2021).
    """

    def __init__(self) -> None:
        self._leads: dict[str, list[Tensor]] = {}

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        here = evaluate(game, movers, game.sample())
        for player in movers:
            self._move(player, player.update(here.gradients[player]))
        return here.round

    @torch.no_grad()
    def _move(self, player: Player, update: list[Tensor]) -> None:
        # A lead, w - b, is kept in place of b: it stays true when somebody else (Lookahead) moves the player.
        leads = self._leads.get(player.name, [torch.zeros_like(change) for change in update])
        for p, lead, change in zip(player.parameters(), leads, update, strict=True):
            p.sub_(lead.to(p)).add_(change)
        player.project()
        base = player.values()
        for p, change in zip(player.parameters(), update, strict=True):
            p.add_(change)
        player.project()
        self._leads[player.name] = [p.detach() - b for p, b in zip(player.parameters(), base, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return dict(self._leads)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._leads = dict(state)
