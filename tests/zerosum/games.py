"""Games small enough to know everything about."""

import torch
from torch import Tensor, nn
from torch.optim import SGD

from zerosum import Game, Player


class Point(nn.Module):
    """A player that is a vector."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(values, dtype=torch.float64))


def scalar_game(payoff, x: float, y: float, step: float, optimizer=SGD, **maximizer) -> Game:
    """max over x, min over y of payoff(x, y)."""
    one, two = Point(x), Point(y)
    return Game(
        maximizer=Player("x", one, optimizer(one.parameters(), step), "maximize", **maximizer),
        minimizer=Player("y", two, optimizer(two.parameters(), step), "minimize"),
        play=lambda _: (one.value, two.value),
        payoff=lambda play: payoff(*play).sum(),
    )


def bilinear(x: float, y: float, step: float) -> Game:
    """Payoff x·y, saddle at (0, 0)."""
    return scalar_game(lambda a, b: a * b, x, y, step)


def saddle(x: float, y: float, step: float) -> Game:
    """Payoff -x² + x·y + y² + x - 2y, concave in x and convex in y, saddle at (x, y) = (0.8, 0.6)."""
    return scalar_game(lambda a, b: -a * a + a * b + b * b + a - 2 * b, x, y, step)


def position(game: Game) -> Tensor:
    """(x, y) of a game of two points."""
    return torch.cat([game.maximizer.module.value, game.minimizer.module.value]).detach().clone()
