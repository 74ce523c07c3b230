"""No command ends in a traceback, whatever fails where; what was reached is kept."""

import json

import pytest

from tests.processes import lines
from zerosum import compare, export, report
from zerosum.runs import checkpoints
from zerosum.runs.run import main

FAILING = """
import os
from dataclasses import dataclass, replace
from pathlib import Path
import torch
from torch import nn
from torch.optim import SGD
from PIL import Image
from rich.table import Table
from zerosum import Game, Match, Player, Simultaneous, Watcher
from zerosum.runs import Experiment, Options, Outcome, Stage


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    rounds: int = 4
    at: str = ""


def fail(config, at):
    if config.at == at and not os.environ.get("MENDED"):
        raise KeyError("the [bold]machine[/] is on fire")  # here


class Fails(Watcher):
    def __init__(self, config):
        self.config = config

    def on_start(self, match):
        fail(self.config, "on_start")

    def on_round(self, match, record):
        fail(self.config, "on_round")

    def on_end(self, match):
        fail(self.config, "on_end")


def recipe(config):
    fail(config, "make")
    x, y = (nn.Linear(1, 1, bias=False) for _ in range(2))

    def entry():
        fail(config, "on_entry")

    def payoff(play):
        fail(config, "payoff")
        return (play[0] * play[1]).sum()

    def measure():
        fail(config, "measure")
        return {"one": 1.0}

    def draw(path):
        Image.new("RGB", (4, 4)).save(path)
        fail(config, "draw")

    def finish(matches, folder):
        (folder / "left.txt").write_text("half", encoding="utf-8")
        fail(config, "finish")
        if config.at == "table" and not os.environ.get("MENDED"):
            return Outcome({"figure": 1.0}, object.__new__(Broken))
        return Outcome({"figure": 1.0}, Table("[red]x[/red]", title="[1, 2]"))

    match = Match(
        Game(
            players=(
                Player("x", x, SGD(x.parameters(), 0.1), "maximize"),
                Player("y", y, SGD(y.parameters(), 0.1), "minimize", sits_out=range(1), on_entry=entry),
            ),
            play=lambda _: (x.weight, y.weight),
            payoff=payoff,
        ),
        Simultaneous(),
        config.rounds,
        measure=measure,
        measure_every=2,
        watchers=[Fails(config)],
    )
    return Experiment.of(Stage(match, draw), finish)


class Broken:
    def __rich_console__(self, console, options):
        raise KeyError("no table")
"""


@pytest.fixture
def failing(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    return str(tmp_path / "failing.py")


@pytest.mark.parametrize("at", ["on_entry", "payoff", "measure", "on_start", "on_round", "on_end", "finish"])
def test_an_error_in_a_recipe_is_one_line_and_the_run_goes_on_when_it_is_mended(
    at, failing, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    assert main([failing, "--at", at, "--out", str(run)]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    line = next(n for n, text in enumerate(FAILING.splitlines(), 1) if text.endswith("# here"))
    assert f"KeyError: 'the [bold]machine[/] is on fire' ({failing}:{line})" in error
    assert "Traceback" in (run / "error.txt").read_text(encoding="utf-8")
    assert not (run / "left.txt").exists()
    monkeypatch.setenv("MENDED", "1")
    assert main([failing, "--resume", str(run)]) == 0
    assert json.loads((run / "summary.json").read_text())["figure"] == 1.0
    assert [line["round"] for line in lines(run)] == list(range(5))
    assert not (run / "error.txt").exists()
    assert "[1, 2]" in (printed := capsys.readouterr().out)
    assert "[red]x[/red]" in printed


def test_an_error_while_a_match_is_made_writes_nothing(failing, tmp_path, capsys):
    assert main([failing, "--at", "make", "--out", str(tmp_path / "run")]) == 1
    assert f"is on fire' ({failing}:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("at", ["draw", "table"])
def test_results_are_written_even_where_a_picture_or_a_table_fails(at, failing, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([failing, "--at", at, "--out", str(run)]) == 0
    assert "KeyError" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    assert summary["figure"] == 1.0
    assert len(summary["failed"]) == (3 if at == "draw" else 1)
    assert not list((run / "pictures").glob("*") if at == "draw" else [])
    assert report.main([str(run)]) == 0
    assert "Not made:" in (run / "report.html").read_text(encoding="utf-8")


def test_a_run_whose_finish_failed_has_its_account_and_is_no_finished_one(failing, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([failing, "--at", "finish", "--out", str(run)]) == 1
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["rounds"], "KeyError" in summary["finish_failed"]) == (4, True)
    assert report.main([str(run)]) == 0
    capsys.readouterr()
    for command in (compare, export):
        assert command.main([str(run)]) == 2
        assert "that run's finish failed" in capsys.readouterr().err


def test_a_picture_of_the_game_that_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zerosum.runs.session.draw_game", lambda *_: 1 / 0)
    assert main(["matrix_game", "--out", str(tmp_path / "run")]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert "the picture of the game" in json.loads((tmp_path / "run" / "summary.json").read_text())["failed"][0]


CONTEST = """
from zerosum.recipes.saddle import Config, recipe as play
from zerosum.runs import Experiment

def recipe(config):
    made = play(config)
    def second(played):
        raise ValueError("no second match")
    return Experiment({"optimistic": made.stages["optimistic"], "second": second}, made.finish)
"""


def test_a_contests_later_match_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "contest.py").write_text(CONTEST)
    assert main([str(tmp_path / "contest.py"), "--rounds", "3", "--out", str(tmp_path / "run")]) == 1
    assert "ValueError: no second match" in capsys.readouterr().err


def test_where_there_is_nothing_whole_to_go_back_to(tmp_path, capsys, monkeypatch):
    def damaged(folder):
        raise checkpoints.Damaged("all is damaged")

    monkeypatch.setattr("zerosum.runs.watchers.checkpoints._whole", damaged)
    options = ["--rounds", "30", "--warmup", "4", "--calibration", "1", "--quantized-lr", "300"]
    options += ["--block-steps", "0"]
    assert main(["adasg", *options, "--on-divergence", "rewind", "--out", str(tmp_path / "run")]) == 3
    error = capsys.readouterr().err
    assert "all is damaged" in error
    assert "Traceback" not in error


def test_a_folder_of_events_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zerosum.runs.watchers.journal.Journal.on_start", full)
    assert main(["saddle", "--tensorboard", "--rounds", "2", "--out", str(tmp_path / "run")]) == 4
    assert "No space left" in capsys.readouterr().err


def test_ctrl_c_anywhere(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for place in (
        "recipe.load",
        "session.Session.play",
        "report.write_report",
        "compare.read_groups",
        "export.results.kind_of",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"zerosum.runs.{place}", interrupt)
            command = {"report": report.main, "compare": compare.main, "export": export.main}.get(
                place.partition(".")[0]
            )
            arguments = [str(tmp_path)] if command else ["saddle", "--out", str(tmp_path / place)]
            assert (command or main)(arguments) == 130, place
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [report, compare, export])
def test_what_nobody_expected_of_the_other_commands(command, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    for place in ("report.write_report", "compare.read_groups", "export.results.kind_of"):
        monkeypatch.setattr(f"zerosum.runs.{place}", fail)
    assert command.main([str(tmp_path)]) == 1
    assert "RuntimeError: two lines (" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no picture", ""], ids=["text", "empty"])
def test_a_picture_that_tensorboard_cannot_read(content, failing, tmp_path, capsys):
    text = FAILING.replace('Image.new("RGB", (4, 4)).save(path)', f"path.write_text({content!r})")
    (tmp_path / "failing.py").write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    assert main([failing, "--tensorboard", "--out", str(run)]) == 0
    assert "the picture round-000000.png in TensorBoard: UnidentifiedImageError" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert (summary["figure"], len(summary["failed"])) == (1.0, 3)
    assert report.main([str(run)]) == 0
    assert "Not shown: the picture round-000004.png" in (run / "report.html").read_text(encoding="utf-8")
