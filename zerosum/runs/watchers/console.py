"""What a person sees while the match is played."""

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from zerosum.match import Match, Record, Watcher
from zerosum.runs.messages import reader_is_gone

_SECONDS_A_LOOK = 0.25
_SECONDS_A_LINE = 10.0
_SECONDS_A_MEASUREMENT = 1.0
_JUDGED = "criterion"
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # of a sparkline


class Sparkline:
    """All values so far in one line of text, each bar the mean of its share of them."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.each = 1  # values in a mean
        self._rest: list[float] = []

    def add(self, value: float) -> None:
        """One value more."""
        self._rest.append(value)
        if len(self._rest) == self.each:
            self.means.append(sum(self._rest) / self.each)
            self._rest.clear()
        if len(self.means) == _WIDTH:  # so that it stays in the line
            self.means = [(a + b) / 2 for a, b in zip(self.means[::2], self.means[1::2], strict=True)]
            self.each *= 2

    def __str__(self) -> str:
        known = [value for value in self.means if math.isfinite(value)]
        low, high = min(known, default=0.0), max(known, default=0.0)
        scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(_BARS[round((value - low) * scale)] for value in known)

    def state_dict(self) -> dict[str, Any]:
        """As plain containers of numbers."""
        return {"means": list(self.means), "each": self.each, "rest": list(self._rest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.means, self.each, self._rest = list(state["means"]), state["each"], list(state["rest"])


class ConsoleWatcher(Watcher):
    """A live panel on a terminal, with sparklines of the payoff and of the figure that the criterion goes by; elsewhere
    a plain line every ten seconds, at a measurement and at the end. Where nobody reads them any more, it ends
    the match."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._payoffs, self._judged = Sparkline(), Sparkline()

    def on_start(self, match: Match) -> None:
        self._started, self._first_round, self._newest_line = time.monotonic(), match.round, 0.0
        self._progress = Progress(
            TextColumn("rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._progress.add_task("rounds", total=match.rounds, completed=match.round, rate="")
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def on_round(self, match: Match, record: Record) -> None:
        if (stake := record.result.stake) is not None:
            self._payoffs.add(stake)
        if record.verdict is not None and record.verdict.figures:
            self._judged.add(list(record.verdict.figures.values())[-1])
        now = time.monotonic()
        rate = (record.round - self._first_round) / max(now - self._started, 1e-9)
        self._progress.update(self._task, completed=record.round, rate=f"{rate:.1f}/s")
        wait = _SECONDS_A_MEASUREMENT if record.measured else _SECONDS_A_LINE
        if self._live is not None and now - self._newest_line >= _SECONDS_A_LOOK:
            self._newest_line = now
            self._live.update(Panel(Group(self._progress, self._rows(match, record)), title="match"))
        elif self._live is None and (now - self._newest_line >= wait or match.over):
            self._newest_line = now
            left = (match.rounds - record.round) / rate
            self.console.print(_line(match, record, rate, left), soft_wrap=True)
        if reader_is_gone(self.console):
            match.stop()

    def on_end(self, match: Match) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def state_dict(self) -> dict[str, Any]:
        return {"payoffs": self._payoffs.state_dict(), "judged": self._judged.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            self._payoffs.load_state_dict(state["payoffs"])
            self._judged.load_state_dict(state["judged"])

    def _rows(self, match: Match, record: Record) -> Table:
        table = Table.grid(padding=(0, 2))
        lines = {"payoff": self._payoffs, _JUDGED: self._judged}
        for name, value in _figures(match, record).items():
            table.add_row(name, value)
            if name in lines:
                table.add_row("", str(lines[name]))
        return table


def _figures(match: Match, record: Record) -> dict[str, str]:
    """What there is to say of a round, by name; of the criterion's figures the last, by which it goes."""
    stake = record.result.stake
    values = {} if stake is None else {"payoff": f"{stake:.4f}"}
    for player, terms in record.result.losses.items():
        values[f"{player} loss"] = f"{sum(value.item() for value in terms.values()):.4f}"
    if match.verdict is not None:
        decisive = [f"{name.replace('_', ' ')} {value:+.4g}: " for name, value in match.verdict.figures.items()][-1:]
        values[_JUDGED] = "".join(decisive) + match.verdict.reason
    if match.measured:
        round, measured = match.measured[-1]
        values["measured"] = " ".join(f"{name} {value:.4g}" for name, value in measured.items()) + f" (round {round})"
    return values


def _line(match: Match, record: Record, rate: float, left: float) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in _figures(match, record).items())
    return f"round {record.round}/{match.rounds}, {rate:.1f}/s, {left:.0f} s left, {figures}"
