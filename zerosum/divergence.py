"""Rounds that lead nowhere: numbers that are infinite or NaN, and players that run away."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zerosum.magnitude import largest_magnitude
from zerosum.player import Player


class Diverged(ArithmeticError):
    """A round came to something that is not finite, or a player ran away. The message names round, player and term."""

    def __init__(self, round: int, what: str) -> None:
        super().__init__(f"round {round}: {what}")
        self.round = round


@torch.no_grad()
def check_round(
    round: int, payoff: Tensor | None, losses: Mapping[str, Mapping[str, Tensor]], movers: Sequence[Player]
) -> None:
    """That the payoff, all losses, and the movers' gradients, parameters and buffers are finite, and that no mover's
    largest parameter has grown beyond its ``growth_limit``.

    Waits for the device.

    Raises:
        Diverged: one of that does not hold.
    """
    terms = [value for own in losses.values() for value in own.values()]
    steepest = [player.steepest for player in movers if player.steepest is not None]
    largest = [player.largest for player in movers]
    buffers = [buffer for player in movers for buffer in player.module.buffers() if buffer.is_floating_point()]
    others = [*terms, *steepest, *largest, *([largest_magnitude(buffers)] if buffers else [])]
    total: Tensor = sum(others, torch.zeros((), dtype=torch.float64) if payoff is None else payoff)
    if not total.isfinite().item():
        _name(round, payoff, losses, movers)
    for player, size in zip(movers, largest, strict=True):
        if player.growth_limit is not None and size.item() > player.growth_limit * player.first_largest > 0:
            sizes = f"its largest parameter is {size.item():.3g}, and was {player.first_largest:.3g} at first"
            raise Diverged(round, f"{player.name!r} runs away: {sizes}")


def _name(
    round: int, payoff: Tensor | None, losses: Mapping[str, Mapping[str, Tensor]], movers: Sequence[Player]
) -> None:
    """Losses before gradients before parameters: what came first is what the others came from."""
    for player, own in losses.items():
        for term, value in own.items():
            if not value.isfinite().all():
                raise Diverged(round, f"the loss {term!r} of {player!r} is not finite")
    if payoff is not None and not payoff.isfinite().all():
        raise Diverged(round, "the payoff is not finite")
    for mover in movers:
        if mover.steepest is not None and not mover.steepest.isfinite():
            terms = " + ".join(losses[mover.name])
            raise Diverged(round, f"a gradient of the loss ({terms}) of {mover.name!r} is not finite")
    for mover in movers:
        for name, tensor in (*mover.module.named_parameters(), *mover.module.named_buffers()):
            if not tensor.isfinite().all():
                raise Diverged(round, f"{name} of {mover.name!r}, after its step, is not finite")
