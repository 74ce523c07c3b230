"""A match: rounds until a criterion or a limit, and those who watch it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from zerosum import ranks
from zerosum.criterion import Criterion, Verdict
from zerosum.divergence import check_round
from zerosum.dynamics import Dynamics, Round
from zerosum.game import Game
from zerosum.player import Player
from zerosum.randomness import kept_random_state, random_state, set_random_state
from zerosum.replicas import begin_alike

Figures = dict[str, float]


@dataclass(frozen=True)
class Record:
    """All that a round gave: its number (from 1), what it came to, the step size of each player that moved, by name,
    and, where due, what was judged and measured."""

    round: int
    result: Round
    step_sizes: dict[str, float]
    verdict: Verdict | None
    measured: Figures | None


class Watcher:
    """Is told what happens in a match. Override what is of interest; a watcher changes nothing in the game.

    What it remembers from round to round goes into the match's checkpoints by ``state_dict``.
    """

    def on_start(self, match: "Match") -> None:
        """Before the first round that this process plays."""

    def on_round(self, match: "Match", record: Record) -> None:
        """After each round."""

    def on_end(self, match: "Match") -> None:
        """When the match ends or breaks off, whatever the reason."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain containers of tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a memory that :meth:`state_dict` gave; nothing, where it did not watch then."""


@dataclass(eq=False)
class Match:
    """Plays a game by a rule until a criterion holds or a number of rounds is reached.

    Args:
        rounds: the limit.
        criterion: judges the rounds in which all players move, every ``criterion.every`` of them.
        stop_when_stationary: end as soon as the criterion holds.
        measure: figures that the game itself never sees (an accuracy on real data), nor the random numbers that they
            took. Taken before the first round, when a player comes in, every ``measure_every`` rounds and after the
            last.
        watchers: told of every round.

    Attributes:
        round: rounds played.
        seconds: spent on them, measurements included.
        measured: (rounds played, figures) of each measurement.
        entered: the round, counted from 0, in which each player came in first, by its name.
        verdict: the criterion's newest.
        broken: an error broke a round off, so that the players may stand between two rounds.
        rewinds: how often it was put back because it diverged (as :mod:`zerosum.runs` can).

    Raises:
        ValueError: a negative number of rounds, ``measure_every`` below 1, or stopping without a criterion.
    """

    game: Game[Any]
    dynamics: Dynamics
    rounds: int
    criterion: Criterion | None = None
    stop_when_stationary: bool = False
    measure: Callable[[], Figures] | None = None
    measure_every: int = 1000
    watchers: Sequence[Watcher] = ()
    round: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    measured: list[tuple[int, Figures]] = field(default_factory=list, init=False)
    entered: dict[str, int] = field(default_factory=dict, init=False)
    verdict: Verdict | None = field(default=None, init=False)
    broken: bool = field(default=False, init=False)
    rewinds: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ValueError(f"a match has 0 rounds or more, not {self.rounds}")
        if self.measure_every < 1:
            raise ValueError(f"measure every 1 round or more, not {self.measure_every}")
        if self.stop_when_stationary and self.criterion is None:
            raise ValueError("to stop when the game is stationary, the match needs a criterion")

    @property
    def over(self) -> bool:
        """Whether the limit is reached, or the criterion holds in a match that stops on it."""
        stationary = self.verdict is not None and self.verdict.stationary
        return self.round >= self.rounds or (self.stop_when_stationary and stationary)

    def stop(self) -> None:
        """Break off after the round that is being played, or before the next; another :meth:`play` goes on."""
        self._stopped = True

    def play(self) -> None:
        """Play from where the match stands to its end, or until :meth:`stop`.

        Raises:
            Diverged: a loss, a gradient or a parameter is not finite, or a player ran away; the round does not count.
        """
        with ranks.alike():  # a match may be part of a round of another
            self._play()

    def _play(self) -> None:
        self.game.round = self.round
        begin_alike(self.game.players)
        if not self._begun:
            self._begun = True
            for player in self.game.players:
                player.first_largest = player.largest.item()
            self._enter(self.game.movers(0))
            self._take_measure()
        started: list[Watcher] = []
        try:
            for watcher in self.watchers:
                started.append(watcher)
                watcher.on_start(self)
            while not self.over and not ranks.any_of(self._stopped):
                record = self._play_round()
                for watcher in self.watchers:
                    watcher.on_round(self, record)
            self._stopped = False
        except BaseException:
            self.broken = True
            raise
        finally:
            with ExitStack() as ends:  # one that fails keeps none of the others from its own
                for watcher in reversed(started):
                    ends.callback(watcher.on_end, self)

    def _play_round(self) -> Record:
        started = time.perf_counter()
        movers = self.game.movers(self.round)
        judge = self._judge_of_round(len(movers))
        if judge is not None:
            with kept_random_state():
                judge.before(self.game)
        steps = {player: player.steps for player in movers}
        with ranks.apart():
            result = self.dynamics.step(self.game, movers)
        check_round(self.round + 1, result.payoff, result.losses, movers)
        for player in movers:
            if player.average is not None:
                player.average.update_parameters(player.module)
        step_sizes = {player.name: player.step_size for player in movers if player.name in result.losses}
        verdict = None
        if judge is not None:
            with kept_random_state():
                self.verdict = verdict = ranks.agreed(judge.after(self.game))
        for player in movers:
            for schedule in player.schedules if player.steps > steps[player] else ():
                schedule.step()
        self.round += 1
        self.game.round = self.round

        entering = [p for p in self.game.movers(self.round) if p not in movers] if not self.over else []
        self._enter(entering)
        due = bool(entering) or self.over or self.round % self.measure_every == 0
        measured = self._take_measure() if due else None
        self.seconds += time.perf_counter() - started
        return Record(self.round, result, step_sizes, verdict, measured)

    def _judge_of_round(self, movers: int) -> Criterion | None:
        if self.criterion is None or movers < len(self.game.players) or self.round % self.criterion.every:
            return None
        return self.criterion

    def _enter(self, players: Sequence[Player]) -> None:
        for player in players:
            self.entered.setdefault(player.name, self.round)
            if player.on_entry is not None:
                player.on_entry()
                self.dynamics.on_entry(player)
                begin_alike([player])

    def _take_measure(self) -> Figures | None:
        if self.measure is None:
            return None
        with kept_random_state():
            figures = ranks.agreed(self.measure())
        if figures:  # else nothing can be said yet
            self.measured.append((self.round, figures))
        return figures or None

    def _watchers_by_name(self) -> Iterator[tuple[str, Watcher]]:
        """Named for their class and, of several of one class, their place among them."""
        seen: Counter[str] = Counter()
        for watcher in self.watchers:
            kind = type(watcher).__name__
            seen[kind] += 1
            yield f"{kind} {seen[kind]}", watcher

    def state_dict(self) -> dict[str, Any]:
        """Players, dynamics, criterion, watchers, measurements, all random-number generators, round: enough to go on
        from here."""
        return {
            "round": self.round,
            "seconds": self.seconds,
            "players": {player.name: player.state_dict() for player in self.game.players},
            "dynamics": self.dynamics.state_dict(),
            "criterion": self.criterion.state_dict() if self.criterion is not None else None,
            "watchers": {name: watcher.state_dict() for name, watcher in self._watchers_by_name()},
            "measured": self.measured,
            "entered": dict(self.entered),
            "verdict": vars(self.verdict) if self.verdict is not None else None,
            "rewinds": self.rewinds,
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a match with the same options stood when :meth:`state_dict` was taken."""
        for player in self.game.players:
            player.load_state_dict(state["players"][player.name])
        self.dynamics.load_state_dict(state["dynamics"])
        if self.criterion is not None:
            self.criterion.load_state_dict(state["criterion"])
        for name, watcher in self._watchers_by_name():  # some may watch this time, and not that
            watcher.load_state_dict(state["watchers"].get(name, {}))
        self._begun, self.broken = True, False
        self.round = self.game.round = state["round"]
        self.seconds = state["seconds"]
        self.measured = [(round, dict(figures)) for round, figures in state["measured"]]
        self.entered = dict(state["entered"])
        self.verdict = Verdict(**state["verdict"]) if state["verdict"] is not None else None
        self.rewinds = state["rewinds"]
        set_random_state(state["random"])
