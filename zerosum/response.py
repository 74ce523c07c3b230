"""Best responses: one player's answer to the other, who stays."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum.dynamics import Simultaneous
from zerosum.game import Game
from zerosum.match import Match
from zerosum.player import Player

Response: TypeAlias = Callable[[Game[Any], Player], None]
"""``respond(game, player)`` puts a player of the game at its best response: by an optimization of its own, or by a
closed form that writes into the player's module."""


class BestResponse:
    """The best response found by an optimization of ``steps`` steps, from where the player stands.

    The player alone moves, along the gradient of its own loss, with a fresh optimizer whose step size falls to 0 along
    a cosine; the projection is its own.

    Args:
        steps: the budget.
        optimizer: makes the optimizer of a list of parameters.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(
        self, steps: int = 200, optimizer: Callable[[Iterable[Tensor]], Optimizer] = lambda p: Adam(p, lr=0.05)
    ) -> None:
        if steps < 1:
            raise ValueError(f"a best response takes at least one step; got {steps}")
        self.steps, self.optimizer = steps, optimizer

    def __call__(self, game: Game[Any], player: Player) -> None:
        optimizer = self.optimizer(player.parameters())
        responding = dataclasses.replace(
            player,
            optimizer=optimizer,
            schedule=CosineAnnealingLR(optimizer, self.steps),
            sits_out=(),
            on_entry=None,
            average=None,
            transform=None,
        )
        waiting = [dataclasses.replace(p, sits_out=range(self.steps), on_entry=None) for p in game.others(player)]
        Match(dataclasses.replace(game, players=(responding, *waiting)), Simultaneous(), self.steps).play()
