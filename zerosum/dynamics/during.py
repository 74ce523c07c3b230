"""One rule in some rounds, another in all others."""

from collections.abc import Container, Sequence
from typing import Any

from zerosum.dynamics.base import Dynamics, Round
from zerosum.game import Game
from zerosum.player import Player


class During(Dynamics):
    """``rule`` in the rounds of a match that ``rounds`` holds, counted from 0, and ``otherwise`` in all others."""

    def __init__(self, rounds: Container[int], rule: Dynamics, otherwise: Dynamics) -> None:
        self.rounds, self.rule, self.otherwise = rounds, rule, otherwise
        self.parts = {"rule": rule, "otherwise": otherwise}

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        return (self.rule if game.round in self.rounds else self.otherwise).step(game, movers)
