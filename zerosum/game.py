"""A game: two players and the scalar they contest."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from zerosum.player import Player

PlayT = TypeVar("PlayT")


@dataclass(eq=False)
class Game(Generic[PlayT]):
    """min over the minimizer, max over the maximizer, of ``E[payoff(play(sample()))]``.

    Args:
        maximizer, minimizer: the players; they share no moving parameter.
        play: one evaluation at a sample: each network forward once; returns a record (a NamedTuple, say) of all that
            the payoff and the players' terms need.
        payoff: the contested scalar of a play.
        sample: draws what chance contributes to a play (latents, labels, a batch); None for a deterministic game,
            whose ``play`` is then given None.

    Raises:
        ValueError: wrong sides, equal names, or a parameter that both players move.
    """

    maximizer: Player
    minimizer: Player
    play: Callable[[Any], PlayT]
    payoff: Callable[[PlayT], Tensor]
    sample: Callable[[], Any] = lambda: None

    def __post_init__(self) -> None:
        if (self.maximizer.side, self.minimizer.side) != ("maximize", "minimize"):
            raise ValueError(
                f"the maximizer {self.maximizer.name!r} is on side {self.maximizer.side!r} and "
                f"the minimizer {self.minimizer.name!r} on side {self.minimizer.side!r}"
            )
        if self.maximizer.name == self.minimizer.name:
            raise ValueError(f"both players are called {self.maximizer.name!r}")
        if set(self.maximizer.parameters()) & set(self.minimizer.parameters()):
            raise ValueError(f"{self.maximizer.name!r} and {self.minimizer.name!r} move a parameter in common")

    @property
    def players(self) -> tuple[Player, Player]:
        """Maximizer, minimizer."""
        return self.maximizer, self.minimizer

    def opponent(self, player: Player) -> Player:
        """The other player."""
        return self.minimizer if player is self.maximizer else self.maximizer

    def movers(self, round: int) -> list[Player]:
        """The players that move in this round, counted from 0.

        Raises:
            ValueError: both sit it out.
        """
        movers = [player for player in self.players if player.moves_in(round)]
        if not movers:
            raise ValueError(f"both {self.maximizer.name!r} and {self.minimizer.name!r} sit out round {round}")
        return movers

    @contextmanager
    def only(self, movers: Sequence[Player]) -> Iterator[None]:
        """Plays evaluated inside build no graph for the parameters of anyone but ``movers``."""
        held = [p for player in self.players if player not in movers for p in player.parameters()]
        for parameter in held:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in held:
                parameter.requires_grad_(True)

    @contextmanager
    def keeping_buffers(self) -> Iterator[None]:
        """Plays evaluated inside leave no trace in the players' buffers (running statistics)."""
        buffers = [buffer for player in self.players for buffer in player.module.buffers()]
        kept = [buffer.clone() for buffer in buffers]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(buffers, kept, strict=True):
                    buffer.copy_(value)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Plays evaluated inside carry no gradient and leave no trace in the players' buffers."""
        with self.keeping_buffers(), torch.no_grad():
            yield
