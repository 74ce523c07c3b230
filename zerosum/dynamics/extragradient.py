"""Extragradient: look ahead, then step from where you stood."""

from collections.abc import Sequence
from typing import Any

from zerosum.dynamics.base import Dynamics, Round, evaluate
from zerosum.game import Game
from zerosum.player import Player


class Extragradient(Dynamics):
    """A step to look ahead, then a step from the start along the gradient found there (Korpelevich 1976).

    ``w½ = w - η F(w)``, ``w' = w - η F(w½)``. Two plays a round. On ``f = x·y``, ``|w'| = √(1 - η² + η⁴) |w|``.

    Both steps are the optimizer's, whose state (momentum, Adam's moments) takes up both gradients, as in ExtraAdam
    (Gidel et al., "A Variational Inequality Perspective on GANs", ICLR 2019, algorithm 4). The play ahead leaves no
    trace in buffers: running statistics are those of the points where the players stood. The round's record is of the
    first play.

    Args:
        resample: draw a fresh sample for the play ahead; else both plays are at the same one (what ``play`` itself
            draws, dropout say, is fresh in either case).
    """

    def __init__(self, resample: bool = False) -> None:
        self.resample = resample

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        sample = game.sample()
        start = [player.values() for player in movers]
        here = evaluate(game, movers, sample)
        for player in movers:
            player.step(here.gradients[player])
        with game.keeping_buffers():
            ahead = evaluate(game, movers, game.sample() if self.resample else sample)
        for player, values in zip(movers, start, strict=True):
            update = player.update(ahead.gradients[player])
            player.place([value + change for value, change in zip(values, update, strict=True)])
            player.project()
        return here.round
