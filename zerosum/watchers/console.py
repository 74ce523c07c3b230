"""What a person sees while the match is played."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from zerosum.match import Match, Record, Watcher

_SECONDS_A_LINE = 10.0
_SECONDS_A_MEASUREMENT = 1.0


class ConsoleWatcher(Watcher):
    """A live panel on a terminal; elsewhere a plain line every ten seconds, at a measurement and at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None

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
        now = time.monotonic()
        rate = (record.round - self._first_round) / max(now - self._started, 1e-9)
        self._progress.update(self._task, completed=record.round, rate=f"{rate:.1f}/s")
        wait = _SECONDS_A_MEASUREMENT if record.measured else _SECONDS_A_LINE
        if self._live is not None and now - self._newest_line >= 0.25:
            self._newest_line = now
            self._live.update(Panel(Group(self._progress, _rows(match, record)), title="match"))
        elif self._live is None and (now - self._newest_line >= wait or match.over):
            self._newest_line = now
            left = (match.rounds - record.round) / rate
            self.console.print(_line(match, record, rate, left), soft_wrap=True, highlight=False)

    def on_end(self, match: Match) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _figures(match: Match, record: Record) -> dict[str, str]:
    """What there is to say of a round, by name."""
    values = {"payoff": f"{record.result.payoff.item():.4f}"}
    for player, terms in record.result.losses.items():
        values[f"{player} loss"] = f"{sum(value.item() for value in terms.values()):.4f}"
    if match.verdict is not None:
        figures = " ".join(f"{name} {value:+.4g}" for name, value in match.verdict.figures.items())
        values["criterion"] = f"{figures} ({match.verdict.reason})"
    if match.measured:
        round, measured = match.measured[-1]
        values["measured"] = " ".join(f"{name} {value:.4g}" for name, value in measured.items()) + f" (round {round})"
    return values


def _rows(match: Match, record: Record) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _figures(match, record).items():
        table.add_row(name, value)
    return table


def _line(match: Match, record: Record, rate: float, left: float) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in _figures(match, record).items())
    return f"round {record.round}/{match.rounds}, {rate:.1f}/s, {left:.0f} s left, {figures}"
