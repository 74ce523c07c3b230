"""Finite games: mixed strategies, and the matrix game between two of them."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from zerosum.game import Game
from zerosum.player import Player, Side
from zerosum.projections import simplex

Move = Literal["projected", "multiplicative"]
_LEAST = 1e-6  # Lipschitz constant beside the largest payoff


class MixedStrategy(nn.Module):
    """A distribution over n actions, uniform at first; calling it gives the probabilities, (n,).

    How SGD of step size η moves it along the gradient g of a loss with respect to the probabilities p:

    - ``"projected"``: ``p' = Π(p - η g)``, Π the nearest point of the simplex (projected gradient).
    - ``"multiplicative"``: ``p' ∝ p · exp(-η g)`` (multiplicative weights, Hedge: Freund and Schapire 1999). The
      parameter is log p, and the gradient reaches it as if it were p: mirror descent by the entropy. So extragradient
      is mirror-prox, and optimistic play is optimistic multiplicative weights (Daskalakis and Panageas 2019).

    Give the player ``projection=strategy.projection``::

        row = MixedStrategy(3)
        Player("row", row, SGD(row.parameters(), lr=0.1), "maximize", projection=row.projection)

    Raises:
        ValueError: fewer than one action, or another name of a move.
    """

    def __init__(self, n: int, move: Move = "projected") -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"a mixed strategy is over at least one action; got {n}")
        if move not in ("projected", "multiplicative"):
            raise ValueError(f'a mixed strategy moves "projected" or "multiplicative", not {move!r}')
        self.move = move
        start = 1 / n if move == "projected" else -math.log(n)
        self.weights = nn.Parameter(torch.full((n,), start))

    def forward(self) -> Tensor:
        if self.move == "projected":
            return self.weights
        probabilities = self.weights.detach().softmax(dim=0)
        return probabilities + (self.weights - self.weights.detach())  # gradient of the identity

    def projection(self, weights: Tensor) -> Tensor:
        """For ``Player.projection``: weights to the nearest distribution, or log-weights to log-probabilities."""
        return simplex(weights) if self.move == "projected" else weights.log_softmax(dim=0)

    def uniform_average(self) -> AveragedModel:
        """For ``Player.average``: the mean of the strategies played, which converges where the last one may circle."""
        return AveragedModel(self, avg_fn=None if self.move == "projected" else _mean_of_logarithms)


def _mean_of_logarithms(average: Tensor, newest: Tensor, count: Tensor | int) -> Tensor:
    """log((count · exp(average) + exp(newest)) / (count + 1)). With plain averaging it would be a geometric mean."""
    weight = torch.as_tensor(count, dtype=average.dtype, device=average.device)
    return torch.logaddexp(average + weight.log(), newest) - torch.log1p(weight)


def matrix_game(
    payoffs: Tensor, move: Move = "projected", step: float | None = None, average: bool = False
) -> Game[tuple[Tensor, Tensor]]:
    """The zero-sum game ``pᵀ A q`` of two mixed strategies: the row player p raises it, the column player q lowers it.

    A play is (p, q); ``game.maximizer.module`` and ``game.minimizer.module`` are the strategies.

    Args:
        payoffs: A, (rows, columns), to the row player.
        move: how SGD moves the strategies (:class:`MixedStrategy`).
        step: SGD's step size; by default :func:`extragradient_step`.
        average: keep the players' uniform averages.

    Raises:
        ValueError: payoffs that are not a finite matrix, or another name of a move.
    """
    if payoffs.dim() != 2 or 0 in payoffs.shape or not payoffs.isfinite().all():
        raise ValueError(f"payoffs: expected a matrix of finite numbers; got shape {tuple(payoffs.shape)}")
    step = extragradient_step(payoffs, move) if step is None else step

    def player(name: str, actions: int, side: Side) -> Player:
        strategy = MixedStrategy(actions, move).to(payoffs)
        averaged = strategy.uniform_average() if average else None
        optimizer = SGD(strategy.parameters(), step)
        return Player(name, strategy, optimizer, side, projection=strategy.projection, average=averaged)

    row = player("row", payoffs.shape[0], "maximize")
    column = player("column", payoffs.shape[1], "minimize")
    return Game(
        players=(row, column),
        play=lambda _: (row.module(), column.module()),
        payoff=lambda play: play[0] @ payoffs @ play[1],
    )


def extragradient_step(payoffs: Tensor, move: Move = "projected") -> float:
    """The step size with which extragradient is sure to converge on a matrix game, less a tenth: 0.9 / L.

    L is the Lipschitz constant of the field where strategies can move. A constant added to a row or a column changes no
    direction within a simplex, so for the projected move L is the spectral norm of the payoffs less the means of their
    rows and columns; for the multiplicative one, half of their span (Nemirovski 2004: the norms are 1 and ∞).
    """
    # Squares of large payoffs would overflow, of small ones vanish. By a power of two, so that nothing is rounded.
    scale = 2.0 ** (math.frexp(payoffs.abs().max().item())[1] - 1)
    unit = payoffs / scale
    if move == "multiplicative":
        lipschitz = (unit.max() - unit.min()).item() / 2
    else:
        tangent = unit - unit.mean(dim=0)
        lipschitz = torch.linalg.matrix_norm(tangent - tangent.mean(dim=1, keepdim=True), 2).item()
    # A constant matrix moves nobody either, but for what rounding leaves of it.
    return min(0.9 / max(lipschitz, _LEAST) / scale, torch.finfo(payoffs.dtype).max)
