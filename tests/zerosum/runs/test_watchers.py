import io
import json
import sys

import pytest
from PIL import Image
from rich.console import Console

from tests.zerosum.games import bilinear
from zerosum import BalanceGap, Match, Simultaneous, Watcher
from zerosum.runs.checkpoints import load_newest, saved
from zerosum.runs.curves import draw_game
from zerosum.runs.run import main as run
from zerosum.runs.watchers import Checkpoints, ConsoleWatcher, Journal, Pictures, TensorBoard
from zerosum.runs.watchers.console import Sparkline
from zerosum.runs.watchers.journal import read
from zerosum.runs.watchers.pictures import drawn


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
    monkeypatch.setattr("zerosum.runs.watchers.console._SECONDS_A_MEASUREMENT", seconds)
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


def test_a_sparkline_is_all_that_was_seen_in_one_line():
    line = Sparkline()
    assert str(line) == ""
    for value in range(8):
        line.add(value)
    assert str(line) == "▁▂▃▄▅▆▇█"
    again = Sparkline()
    again.load_state_dict(line.state_dict())
    for value in range(8, 1000):
        line.add(value)
        again.add(value)
    assert str(again) == str(line)
    assert 20 <= len(str(line)) <= 40
    assert (str(line)[0], str(line)[-1]) == ("▁", "█")
    assert sorted(str(line)) == list(str(line))
    flat = Sparkline()
    flat.add(float("nan"))
    flat.add(3.0)
    assert str(flat) == "▁"


def test_the_panel_has_sparklines_and_the_verdict_in_words(monkeypatch):
    shown = []
    monkeypatch.setattr("zerosum.runs.watchers.console.Live.update", lambda live, panel: shown.append(panel))
    monkeypatch.setattr("zerosum.runs.watchers.console._SECONDS_A_LOOK", 0)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    match = match_watched_by(ConsoleWatcher(terminal), rounds=40)
    match.play()
    console = Console(file=io.StringIO(), width=80)
    console.print(shown[-1])
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for said in ("match", "40/40", "left", "payoff", "balance gap mean", match.verdict.reason, "▁", "█"):
        assert said in text


def test_pictures_are_drawn_at_the_start_in_the_middle_and_at_the_end(tmp_path):
    match_watched_by(Pictures(tmp_path, lambda path: path.write_text("picture")), rounds=7).play()
    assert drawn(tmp_path) == {round: tmp_path / "pictures" / f"round-{round:06d}.png" for round in (0, 3, 7)}


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_has_the_same_scalars_and_the_pictures(tmp_path):
    def draw(path):
        Image.new("RGB", (4, 4)).save(path)

    def watched(rounds):
        journal = Journal(tmp_path / "j")
        watchers = (journal, Pictures(tmp_path, draw), TensorBoard(tmp_path, every=5))
        return match_watched_by(*watchers, rounds=rounds, measure=lambda: {"one": 1.0}, measure_every=6)

    watched(12).play()
    events, lines = read_events(tmp_path), read(tmp_path / "j")
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert [step for step, _ in found["payoff"]] == [line["round"] for line in lines[1:]]
    assert [value for _, value in found["payoff"]] == pytest.approx([line["payoff"] for line in lines[1:]])
    assert [step for step, _ in found["measured/one"]] == [0, 6, 12]
    assert [step for step, _ in found["criterion/balance_gap"]] == [1, 5, 9]
    assert set(found) > {"x/payoff", "y/payoff", "step size/x", "step size/y"}
    assert [event.step for event in events.Images("players")] == [0, 6, 12]


def test_without_its_package_tensorboard_is_refused_with_an_install_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(["saddle", "--tensorboard", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'zerosum[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
