"""What every dynamics is made of: one evaluation of a game, with each player's gradient of its own loss.

In the equations of this package x is the maximizer's parameters, y the minimizer's, w both; f is the payoff and
``F(w) = (-∇x f, ∇y f)`` the game's vector field, along whose negative everybody moves; η is a step size. An optimizer
other than SGD takes its own step along the same gradient, a player's private terms add theirs to F, and a player with
a projection is projected after each step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zerosum import ranks
from zerosum.game import Game
from zerosum.player import Player


@dataclass(frozen=True)
class Round:
    """What a round came to: detached scalars, still on the device they were computed on.

    ``losses`` holds, for each player that moved, its terms by name, at the last point of the round that it moved from;
    the payoff is None of a game that has none.
    """

    payoff: Tensor | None
    losses: dict[str, dict[str, Tensor]]

    @property
    def stake(self) -> float | None:
        """The payoff as a number, which waits for the device."""
        return None if self.payoff is None else self.payoff.item()


@dataclass(frozen=True)
class Evaluation:
    """One play: its payoff, if there is one, and for each mover its losses by name and its gradient, one a parameter
    that it moves."""

    payoff: Tensor | None
    losses: dict[Player, dict[str, Tensor]]
    gradients: dict[Player, Sequence[Tensor | None]]

    @property
    def round(self) -> Round:
        """The record of a round that this evaluation stands for."""
        losses = {p.name: {name: value.detach() for name, value in terms.items()} for p, terms in self.losses.items()}
        return Round(None if self.payoff is None else self.payoff.detach(), losses)


def evaluate(game: Game[Any], movers: Sequence[Player], sample: Any, create_graph: bool = False) -> Evaluation:
    """Play once at ``sample``, each network forward once; every mover's gradient is of its own loss and parameters.

    A gradient is None where the loss does not reach the parameter. With ``create_graph`` the gradients can be
    differentiated once more. Of several ranks in a round (:mod:`zerosum.ranks`), all is the mean over them, and payoff
    and losses are detached.

    Raises:
        ValueError: a payoff or a loss that is no scalar.
    """
    with game.only(movers):
        play = game.play(sample)
        payoff = game.payoff_of(play)
    losses = {player: player.losses(play, payoff) for player in movers}
    _check_that_they_are_scalars(payoff, losses)
    gradients: dict[Player, Sequence[Tensor | None]] = {}
    for player in movers:
        loss = torch.stack(list(losses[player].values())).sum()
        gradients[player] = ranks.gradient_means(
            torch.autograd.grad(
                loss,
                player.parameters(),
                retain_graph=create_graph or player is not movers[-1],
                create_graph=create_graph,
                allow_unused=True,
            ),
            player.parameters(),
        )
    return Evaluation(*over_ranks(payoff, losses), gradients)


def over_ranks(
    payoff: Tensor | None, losses: Mapping[Player, Mapping[str, Tensor]]
) -> tuple[Tensor | None, dict[Player, dict[str, Tensor]]]:
    """Their means, detached: payoff and losses, in one exchange; where there is one rank alone, they themselves."""
    if not ranks.are_apart():
        return payoff, {player: dict(terms) for player, terms in losses.items()}
    scalars = [value for terms in losses.values() for value in terms.values()]
    values = iter(ranks.means([value.detach() for value in (*scalars, *([] if payoff is None else [payoff]))]))
    found = {player: {name: next(values) for name in terms} for player, terms in losses.items()}
    return next(values, None), found


def _check_that_they_are_scalars(payoff: Tensor | None, losses: Mapping[Player, Mapping[str, Tensor]]) -> None:
    if payoff is not None and payoff.ndim:
        raise _no_scalar("the payoff", payoff)
    for player, terms in losses.items():
        for name, value in terms.items():
            if value.ndim:
                raise _no_scalar(f"the loss {name!r} of {player.name!r}", value)


def _no_scalar(what: str, value: Tensor) -> ValueError:
    return ValueError(f"{what} has shape {tuple(value.shape)}; expected a scalar: take its mean or sum")


class Dynamics(ABC):
    """A rule of update: one call of :meth:`step` is one round. A rule with a memory belongs to one match."""

    parts: Mapping[str, "Dynamics"] = {}
    """Rules that it is made of, by name: they are told who comes in, and remembered with it."""

    @abstractmethod
    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        """Move ``movers``, the players of ``game`` that do not sit out this round."""

    def on_entry(self, player: Player) -> None:
        """A player came in, and its own ``on_entry`` may have moved it."""
        for part in self.parts.values():
            part.on_entry(player)

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers from round to round, as plain containers of tensors and numbers."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a memory that :meth:`state_dict` gave."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
