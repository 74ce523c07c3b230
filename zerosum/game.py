"""A game: two players and the scalar they contest, or one and what it lowers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from zerosum.player import Player, Side

PlayT = TypeVar("PlayT")


@dataclass(eq=False)
class Game(Generic[PlayT]):
    """min over the minimizer, max over the maximizer, of ``E[payoff(play(sample()))]``.

    Args:
        players: a maximizer and a minimizer, who share no moving parameter; or one of them, alone.
        play: one evaluation at a sample: each network forward once; returns a record (a NamedTuple, say) of all that
            the payoff and the players' terms need.
        payoff: the contested scalar of a play; None where every player has a surrogate or terms of its own.
        sample: draws what chance contributes to a play (latents, labels, a batch); None for a deterministic game,
            whose ``play`` is then given None.

    Attributes:
        players: the maximizer before the minimizer.
        round: that is being played, counted from 0, for samples and terms that change with it.
        round_was_asked: somebody has read ``round``.

    Raises:
        ValueError: players on one side, equal names, a parameter that both move, or a player with nothing to lower.
    """

    players: Sequence[Player]
    play: Callable[[Any], PlayT]
    payoff: Callable[[PlayT], Tensor] | None = None
    sample: Callable[[], Any] = lambda: None
    round_was_asked: bool = field(default=False, init=False)
    _round: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.players = tuple(sorted(self.players, key=lambda player: player.side))
        if len(self.players) not in (1, 2):
            raise ValueError(f"a game has one player or two; got {len(self.players)}")
        one, other = self.players[0], self.players[-1]
        if one is not other:
            if one.side == other.side:
                raise ValueError(f"{one.name!r} and {other.name!r} are both on side {one.side!r}")
            if one.name == other.name:
                raise ValueError(f"both players are called {one.name!r}")
            if set(one.parameters()) & set(other.parameters()):
                raise ValueError(f"{one.name!r} and {other.name!r} move a parameter in common")
        for player in self.players:
            if self.payoff is None and player.surrogate is None and not player.terms:
                raise ValueError(f"{player.name!r} has nothing to lower: no payoff, no surrogate and no terms")

    @property
    def round(self) -> int:
        self.round_was_asked = True
        return self._round

    @round.setter
    def round(self, round: int) -> None:
        self._round = round

    @property
    def maximizer(self) -> Player:
        """The player that raises the payoff.

        Raises:
            ValueError: the minimizer plays alone.
        """
        return self._on_side("maximize")

    @property
    def minimizer(self) -> Player:
        """The player that lowers the payoff.

        Raises:
            ValueError: the maximizer plays alone.
        """
        return self._on_side("minimize")

    def _on_side(self, side: Side) -> Player:
        for player in self.players:
            if player.side == side:
                return player
        raise ValueError(f"{self.players[0].name!r} plays alone: nobody is to {side}")

    def payoff_of(self, play: PlayT) -> Tensor | None:
        """The payoff of a play, where the game has one."""
        return None if self.payoff is None else self.payoff(play)

    def others(self, player: Player) -> list[Player]:
        """The opponent, where there is one."""
        return [other for other in self.players if other is not player]

    def movers(self, round: int) -> list[Player]:
        """The players that move in this round, counted from 0.

        Raises:
            ValueError: all sit it out.
        """
        movers = [player for player in self.players if player.moves_in(round)]
        if not movers:
            names = " and ".join(repr(player.name) for player in self.players)
            raise ValueError(f"{names} sit{'s' * (len(self.players) == 1)} out round {round}, so that nobody moves")
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
