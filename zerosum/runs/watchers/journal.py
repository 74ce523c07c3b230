"""The journal: one line of JSON a round."""

import json
import os
from pathlib import Path
from typing import Any

from zerosum.match import Match, Record, Watcher
from zerosum.runs.run_folder import finite


class Journal(Watcher):
    """Appends every round to a file: round, payoff, each player's step size and losses, and what was judged and
    measured.

    Tensors are read ``every`` rounds at a time, so that a GPU is not made to wait in each round. A match that goes on
    from an earlier round finds later lines removed. The first line, round 0, has what was measured before the game.
    """

    def __init__(self, path: Path, every: int = 50) -> None:
        self.path = path
        self.every = every
        self._pending: list[Record] = []

    def on_start(self, match: Match) -> None:
        self._pending.clear()
        size = _size_of_rounds(self.path, match.round)
        with self.path.open("a", encoding="utf-8") as file:
            file.truncate(size)
            if not size and match.round == 0:
                measured = match.measured[-1][1] if match.measured else None
                file.write(json.dumps({"round": 0} | ({"measured": measured} if measured else {})) + "\n")

    def on_round(self, match: Match, record: Record) -> None:
        self._pending.append(record)
        if len(self._pending) >= self.every:
            self.flush()

    def on_end(self, match: Match) -> None:
        self.flush()

    def flush(self) -> None:
        """Write all rounds that are not yet in the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(finite(_as_json(record))) + "\n" for record in self._pending)
            file.flush()
            os.fsync(file.fileno())
        self._pending.clear()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, but for one at its end that is still being written, or was when its process was killed.

    Raises:
        ValueError: one is damaged.
        OSError: the file cannot be read.
    """
    *whole, last = path.read_bytes().rstrip(b"\0").split(b"\n")  # zeros are what a power cut leaves
    while not last and whole and not whole[-1]:
        whole.pop()
    try:
        lines = [_parse(line) for line in whole]
        return [*lines, _parse(last)] if last and not _is_cut_short(last) else lines
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error


def _is_cut_short(line: bytes) -> bool:
    try:
        _parse(line)
    except ValueError:
        return line.startswith(b"{")
    return False


def _parse(line: bytes) -> dict[str, Any]:
    content = json.loads(line)
    if not isinstance(content, dict) or not isinstance(content.get("round"), int):
        raise ValueError(f"expected a round, found {line[:40]!r}")
    return content


def _size_of_rounds(path: Path, last: int) -> int:
    """Bytes of a journal's lines up to a round; what a killed process wrote behind them, or cut short, is left out."""
    size, expected = 0, 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            round = _parse(line)["round"]
        except ValueError:
            break
        if round != expected or round > last or not line.endswith(b"\n"):
            break
        size, expected = size + len(line), round + 1
    return size


def _as_json(record: Record) -> dict[str, Any]:
    line: dict[str, Any] = {"round": record.round, "payoff": record.result.stake}
    line["step_sizes"] = record.step_sizes
    line["losses"] = {
        player: {name: value.item() for name, value in terms.items()} for player, terms in record.result.losses.items()
    }
    if record.verdict is not None:
        line |= record.verdict.figures | {"stationary": record.verdict.stationary}
    if record.measured is not None:
        line["measured"] = record.measured
    return line
