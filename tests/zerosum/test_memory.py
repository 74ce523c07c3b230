"""Memory stays flat over a long match."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from torch import nn
import torch
from torch.optim import Adam
from rich.console import Console
from zerosum import BalanceGap, Game, Match, Player, Simultaneous, Watcher
from zerosum.memory import keep_freed_memory
from zerosum.runs.watchers import Checkpoints, ConsoleWatcher, Journal

torch.set_num_threads(1)
keep_freed_memory()
folder = Path(sys.argv[1])
one, two = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), nn.Linear(8, 1)
maximizer = Player("one", one, Adam(one.parameters(), 1e-3), "maximize")
minimizer = Player("two", two, Adam(two.parameters(), 1e-3), "minimize")
game = Game(
    (maximizer, minimizer),
    play=lambda z: two(one(z)),
    payoff=lambda play: play.tanh().mean(),
    sample=lambda: torch.randn(16, 8),
)

class Weigh(Watcher):
    def on_round(self, match, record):
        if record.round in (1000, 4000):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(pages, file=sys.stderr)

journal = Journal(folder / "metrics.jsonl")
watchers = [ConsoleWatcher(Console()), journal, Checkpoints(folder, journal, seconds=2), Weigh()]
criterion = BalanceGap(torch.randn(16, 8), every=50)
Match(game, Simultaneous(), 4000, criterion, measure=lambda: {"w": two.weight.mean().item()}, measure_every=100,
      watchers=watchers).play()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_four_thousand_rounds_take_no_more_memory_than_a_thousand(tmp_path):
    result = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=True)
    early, late = map(int, result.stderr.split())
    assert late <= 1.03 * early
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4001
