"""Games small enough to know everything about."""

import torch
from torch import Tensor, nn
from torch.optim import SGD

from tests.strategies import normal
from zerosum import Game, Player


class Point(nn.Module):
    """A player that is a vector."""

    def __init__(self, values) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.as_tensor(values, dtype=torch.float64).clone())


def vector_game(payoff, x, y, step: float, optimizer=SGD, **maximizer) -> Game:
    """max over x, min over y of payoff(x, y), for vectors x and y."""
    one, two = Point(x), Point(y)
    return Game(
        players=(
            Player("x", one, optimizer(one.parameters(), step), "maximize", **maximizer),
            Player("y", two, optimizer(two.parameters(), step), "minimize"),
        ),
        play=lambda _: (one.value, two.value),
        payoff=lambda play: payoff(*play),
    )


def scalar_game(payoff, x: float, y: float, step: float, optimizer=SGD, **maximizer) -> Game:
    """max over x, min over y of payoff(x, y), for numbers x and y."""
    return vector_game(lambda a, b: payoff(a, b).sum(), [x], [y], step, optimizer, **maximizer)


def bilinear(x: float, y: float, step: float) -> Game:
    """Payoff x·y, saddle at (0, 0)."""
    return scalar_game(lambda a, b: a * b, x, y, step)


def saddle(x: float, y: float, step: float) -> Game:
    """Payoff -x² + x·y + y² + x - 2y, concave in x and convex in y, saddle at (x, y) = (0.8, 0.6)."""
    return scalar_game(lambda a, b: -a * a + a * b + b * b + a - 2 * b, x, y, step)


def position(game: Game) -> Tensor:
    """(x, y) of a game of two vectors, end to end."""
    return torch.cat([game.maximizer.module.value, game.minimizer.module.value]).detach().clone()


class Quadratic:
    """Payoff ``-½ xᵀPx + xᵀBy + ½ yᵀQy + pᵀx + qᵀy``, strongly concave in x and strongly convex in y.

    ``P`` and ``Q`` have their eigenvalues spread from 1/condition to 1, both ends taken, ``B`` the spectral norm
    ``coupling``. The field is ``F(w) = J w + c``.
    """

    def __init__(self, seed: int, m: int, n: int, condition: float, coupling: float) -> None:
        self.m, self.n = m, n
        self.P, self.Q = _positive(seed, m, condition), _positive(seed + 1, n, condition)
        b = normal(seed + 2, m, n)
        self.B = coupling * b / torch.linalg.matrix_norm(b, 2)
        self.p, self.q, self.start = normal(seed + 3, m), normal(seed + 4, n), normal(seed + 5, m + n)
        top, bottom = torch.cat([self.P, -self.B], dim=1), torch.cat([self.B.T, self.Q], dim=1)
        self.jacobian = torch.cat([top, bottom])
        self.constant = torch.cat([-self.p, self.q])

    def field(self, w: Tensor) -> Tensor:
        return self.jacobian @ w + self.constant

    @property
    def saddle(self) -> Tensor:
        return torch.linalg.solve(self.jacobian, -self.constant)

    def payoff(self, x: Tensor, y: Tensor) -> Tensor:
        own = -x @ self.P @ x / 2 + y @ self.Q @ y / 2
        return own + x @ self.B @ y + self.p @ x + self.q @ y

    def game(self, step: float, **options) -> Game:
        return vector_game(self.payoff, self.start[: self.m], self.start[self.m :], step, **options)


def _positive(seed: int, size: int, condition: float) -> Tensor:
    basis, _ = torch.linalg.qr(normal(seed, size, size))
    return basis @ torch.diag(torch.logspace(0, -1, size, base=condition, dtype=torch.float64)) @ basis.T
