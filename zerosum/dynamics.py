"""Dynamics: the rule by which a round moves the players.

In the equations x is the maximizer's parameters, y the minimizer's, f the payoff and η a step size; an optimizer other
than SGD takes its own step along the same gradient, and a player's private terms add theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from zerosum.game import Game
from zerosum.player import Player


@dataclass(frozen=True)
class Round:
    """What a round came to: detached scalars, still on the device they were computed on.

    ``losses`` holds, for each player that moved, its terms by name, at its last step of the round.
    """

    payoff: Tensor
    losses: dict[str, dict[str, Tensor]]


class Dynamics(Protocol):
    """A rule of update: one call of ``step`` is one round."""

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        """Move ``movers``, the players of ``game`` that do not sit out this round."""
        ...


@dataclass(frozen=True)
class Simultaneous:
    """Both players step from the same point, on one play, each network forward once.

    ``x' = x + η ∇x f(x, y)``, ``y' = y - η ∇y f(x, y)``: gradient descent-ascent, the published AdaSG loop.
    """

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        with game.only(movers):
            play = game.play(game.sample())
            payoff = game.payoff(play)
        losses = {player: player.losses(play, payoff) for player in movers}
        gradients = [_gradients(player, losses[player], keep_graph=player is not movers[-1]) for player in movers]
        for player, gradient in zip(movers, gradients, strict=True):
            player.step(gradient)
        return _round(payoff, losses)


@dataclass(frozen=True)
class Alternating:
    """First the maximizer takes ``max_steps`` steps, then the minimizer ``min_steps``, each on a fresh play.

    ``x' = x + η ∇x f(x, y)``, ``y' = y - η ∇y f(x', y)`` (with one step each).

    Raises:
        ValueError: a number of steps below 1.
    """

    max_steps: int = 1
    min_steps: int = 1

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.min_steps < 1:
            raise ValueError(f"each player takes at least one step; got {self.max_steps} and {self.min_steps}")

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        losses = {}
        for player in movers:
            for _ in range(self.max_steps if player.side == "maximize" else self.min_steps):
                with game.only([player]):
                    play = game.play(game.sample())
                    payoff = game.payoff(play)
                losses[player] = player.losses(play, payoff)
                player.step(_gradients(player, losses[player]))
        return _round(payoff, losses)


def _gradients(player: Player, losses: dict[str, Tensor], keep_graph: bool = False) -> Sequence[Tensor | None]:
    """Of the player's loss with respect to the player's own parameters, and nothing else."""
    loss = torch.stack(list(losses.values())).sum()
    return torch.autograd.grad(loss, player.parameters(), retain_graph=keep_graph, allow_unused=True)


def _round(payoff: Tensor, losses: dict[Player, dict[str, Tensor]]) -> Round:
    detached = {p.name: {name: value.detach() for name, value in terms.items()} for p, terms in losses.items()}
    return Round(payoff.detach(), detached)
