import io
import json

import pytest
from PIL import Image
from rich.console import Console

from tests.zerosum.games import bilinear
from zerosum import BalanceGap, Match, Simultaneous, Watcher
from zerosum.checkpoints import load_newest, saved
from zerosum.curves import draw_game
from zerosum.watchers import Checkpoints, ConsoleWatcher, Journal
from zerosum.watchers.journal import read


def match_watched_by(*watchers, rounds=12, **options):
    criterion = BalanceGap(None, every=4)
    return Match(bilinear(1.0, 2.0, 0.1), Simultaneous(), rounds, criterion, watchers=watchers, **options)


def test_the_journal_holds_each_round_with_its_figures(tmp_path):
    match = match_watched_by(Journal(tmp_path / "j", every=5), measure=lambda: {"one": 1.0}, measure_every=6)
    match.play()
    lines = read(tmp_path / "j")
    assert [line["round"] for line in lines] == list(range(13))
    assert lines[0] == {"round": 0, "measured": {"one": 1.0}}
    assert lines[1]["payoff"] == 2.0  # x · y where they start
    assert lines[1]["losses"] == {"x": {"payoff": -2.0}, "y": {"payoff": 2.0}}
    assert [line["round"] for line in lines if "balance_gap" in line] == [1, 5, 9]
    assert [line["round"] for line in lines if "measured" in line] == [0, 6, 12]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    match_watched_by(Journal(tmp_path / "j"), rounds=1, measure=lambda: {"ratio": float("nan")}).play()
    assert json.loads((tmp_path / "j").read_text().splitlines()[1])["measured"] == {"ratio": None}


def test_a_journal_that_ran_ahead_is_cut_back(tmp_path):
    path = tmp_path / "j"
    path.write_text("".join(json.dumps({"round": r, "old": True}) + "\n" for r in range(9)) + '{"round": 9, "pay')
    match = match_watched_by(Journal(path))
    match.load_state_dict(match.state_dict() | {"round": 4})
    match.play()
    lines = read(path)
    assert [line["round"] for line in lines] == list(range(13))
    assert [line["round"] for line in lines if "old" in line] == [0, 1, 2, 3, 4]


class Failing(Watcher):
    def on_round(self, match, record):
        if record.round == 7:
            raise RuntimeError("the machine is on fire")


def test_checkpoints_are_of_whole_rounds_and_the_journal_reaches_as_far(tmp_path):
    journal = Journal(tmp_path / "j")
    match = match_watched_by(journal, Checkpoints(tmp_path, journal, seconds=0), Failing())
    with pytest.raises(RuntimeError, match="on fire"):
        match.play()
    assert load_newest(tmp_path)[0]["round"] == 7
    assert read(tmp_path / "j")[-1]["round"] == 7
    assert not list(tmp_path.rglob("*.part"))


def test_an_error_leaves_the_checkpoint_before_it(tmp_path):
    journal = Journal(tmp_path / "j")
    match = match_watched_by(Failing(), journal, Checkpoints(tmp_path, journal, seconds=1e9))
    with pytest.raises(RuntimeError, match="on fire"):
        match.play()
    assert [path.name[:8] for path in saved(tmp_path)] == ["00000000"]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_plain_lines_where_there_is_no_terminal(seconds, monkeypatch):
    monkeypatch.setattr("zerosum.watchers.console._SECONDS_A_MEASUREMENT", seconds)
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    match_watched_by(ConsoleWatcher(console), measure=lambda: {"top1": 90.0}, measure_every=6).play()
    lines = console.file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "round 1/12",
        *(["round 6/12"] if not seconds else []),
        "round 12/12",
    ]
    for name in ("payoff", "x loss", "y loss", "balance gap mean", "top1 90 (round 12)", "s left"):
        assert name in lines[-1]
    assert "\x1b" not in lines[-1]


def test_a_live_panel_on_a_terminal_that_fits_eighty_columns():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    match_watched_by(ConsoleWatcher(console), rounds=3).play()
    text = console.file.getvalue()
    assert "match" in text
    assert "payoff" in text


@pytest.mark.parametrize(("measured", "panels"), [(True, 4), (False, 3)])
def test_the_picture_of_a_game(tmp_path, measured, panels):
    options = {"measure": lambda: {"top1": 90.0}, "measure_every": 20} if measured else {}
    match = match_watched_by(Journal(tmp_path / "j"), rounds=60, **options)
    match.game.minimizer.sits_out = range(8)
    match.play()
    draw_game(read(tmp_path / "j"), tmp_path / "game.png")
    with Image.open(tmp_path / "game.png") as image:
        assert image.size == pytest.approx((990, 302.5 * panels), abs=1)


def test_a_match_of_no_rounds_has_a_picture_too(tmp_path):
    match_watched_by(Journal(tmp_path / "j"), rounds=0).play()
    draw_game(read(tmp_path / "j"), tmp_path / "game.png")
    assert (tmp_path / "game.png").exists()
