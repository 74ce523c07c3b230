"""How long a pass will take, said while it is still to come, and what would shorten it."""

import pytest

from zerosum.players import pace
from zerosum.players.progress import silent


@pytest.fixture
def clock(monkeypatch):
    """What the time is, set by the test."""
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


def passes(clock, batches, reading, seeing, seen):
    found = pace.Pace(batches)
    for _ in range(seen):
        clock[0] += reading
        found.read()
        clock[0] += seeing
        found.seen()


@pytest.mark.parametrize(
    ("reading", "seeing", "said"),
    [
        (3.0, 1.0, "some 400 s each time, 75% of it reading pictures; more workers (--workers) would"),
        (1.0, 3.0, "some 400 s each time, 25% of it reading pictures\n"),
        (0.05, 0.05, ""),  # ten seconds are soon over
    ],
)
def test_a_long_pass_is_announced_once(clock, capsys, reading, seeing, said):
    passes(clock, 100, reading, seeing, seen=90)
    found = capsys.readouterr().out
    assert said in found
    assert found.count("measuring takes") == bool(said)


def test_it_is_not_judged_by_the_first_batch(clock, capsys):
    passes(clock, 100, 3.0, 1.0, seen=1)
    assert not capsys.readouterr().out


def test_nothing_is_said_of_what_is_not_known_or_where_there_is_to_be_silence(clock, capsys):
    passes(clock, None, 3.0, 1.0, seen=5)
    with silent():
        passes(clock, 100, 3.0, 1.0, seen=5)
    assert not capsys.readouterr().out
