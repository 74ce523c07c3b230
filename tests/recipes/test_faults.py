"""No command ends in a traceback, whatever fails where; what was reached is kept."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import finish, lines, start
from zerosum import checkpoints, compare, export, report
from zerosum.run import main

FAILING = """
import os
from dataclasses import dataclass, replace
from pathlib import Path
import torch
from torch import nn
from torch.optim import SGD
from PIL import Image
from rich.table import Table
from zerosum import Contest, Game, Match, Options, Outcome, Player, Simultaneous, Watcher


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

    def finish(match, folder):
        (folder / "left.txt").write_text("half", encoding="utf-8")
        fail(config, "finish")
        if config.at == "table" and not os.environ.get("MENDED"):
            return Outcome({"figure": 1.0}, object.__new__(Broken))
        return Outcome({"figure": 1.0}, Table("[red]x[/red]", title="[1, 2]"))

    return Match(
        Game(
            maximizer=Player("x", x, SGD(x.parameters(), 0.1), "maximize"),
            minimizer=Player("y", y, SGD(y.parameters(), 0.1), "minimize", sits_out=range(1), on_entry=entry),
            play=lambda _: (x.weight, y.weight),
            payoff=payoff,
        ),
        Simultaneous(),
        config.rounds,
        measure=measure,
        measure_every=2,
        draw=draw,
        finish=finish,
        watchers=[Fails(config)],
    )


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
    monkeypatch.setattr("zerosum.session.draw_game", lambda *_: 1 / 0)
    assert main(["matrix_game", "--out", str(tmp_path / "run")]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert "the picture of the game" in json.loads((tmp_path / "run" / "summary.json").read_text())["failed"][0]


CONTEST = """
from recipes.saddle import Config, recipe as play
from zerosum import Contest

def recipe(config):
    made = play(config)
    def second():
        raise ValueError("no second match")
    return Contest({"optimistic": made.matches["optimistic"], "second": second}, made.finish)
"""


def test_a_contests_later_match_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "contest.py").write_text(CONTEST)
    assert main([str(tmp_path / "contest.py"), "--rounds", "3", "--out", str(tmp_path / "run")]) == 1
    assert "ValueError: no second match" in capsys.readouterr().err


def test_where_there_is_nothing_whole_to_go_back_to(tmp_path, capsys, monkeypatch):
    def damaged(folder):
        raise checkpoints.Damaged("all is damaged")

    monkeypatch.setattr("zerosum.watchers.checkpoints._whole", damaged)
    options = ["--rounds", "30", "--warmup", "4", "--calibration", "1", "--quantized-lr", "300"]
    assert main(["adasg", *options, "--on-divergence", "rewind", "--out", str(tmp_path / "run")]) == 3
    error = capsys.readouterr().err
    assert "all is damaged" in error
    assert "Traceback" not in error


def test_a_folder_of_events_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zerosum.watchers.journal.Journal.on_start", full)
    assert main(["saddle", "--tensorboard", "--rounds", "2", "--out", str(tmp_path / "run")]) == 4
    assert "No space left" in capsys.readouterr().err


def test_ctrl_c_anywhere(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for place in (
        "recipe.load",
        "session.play",
        "report.write_report",
        "compare.read_groups",
        "export.results.kind_of",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"zerosum.{place}", interrupt)
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
        monkeypatch.setattr(f"zerosum.{place}", fail)
    assert command.main([str(tmp_path)]) == 1
    assert "RuntimeError: two lines (" in capsys.readouterr().err


def test_commands_in_threads(tmp_path):
    with ThreadPoolExecutor(2) as threads:
        runs = [["matrix_game", "--seed", str(seed), "--out", str(tmp_path / str(seed))] for seed in range(2)]
        assert list(threads.map(main, runs)) == [0, 0]
        folders = [str(tmp_path / "0"), str(tmp_path / "1")]
        assert threads.submit(report.main, folders[:1]).result() == 0
        assert threads.submit(compare.main, [*folders, "--out", str(tmp_path / "out")]).result() == 0
    assert threading.active_count() == 1


def test_starts_at_once_leave_one_run_in_a_folder_and_a_folder_for_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs = [tmp_path / f"log{n}" for n in range(3)]
    processes = [
        start(log, "gan_ring", "--rounds", "60", "--out", tmp_path / "run", "--seed", n) for n, log in enumerate(logs)
    ]
    ends = [finish(process, log) for process, log in zip(processes, logs, strict=True)]
    assert sorted(code for code, _ in ends) == [0, 2, 2]
    winner = [code for code, _ in ends].index(0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["seed"] == winner
    assert "Traceback" not in "".join(out for _, out in ends)

    class Then:
        now = staticmethod(lambda: __import__("datetime").datetime(2026, 1, 1))

    monkeypatch.setattr("zerosum.folder.datetime", Then)
    for _ in range(3):
        assert main(["matrix_game"]) == 0
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"matrix_game-20260101-000000" + end for end in ("", "-2", "-3")}


def command(*arguments):
    return [sys.executable, "-m", "zerosum.run", *map(str, arguments)]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_closed_pipe_and_a_hang_up_end_a_run_with_a_checkpoint(tmp_path):
    options = ["gan_ring", "--rounds", "100000", "--dynamics", "simultaneous"]
    run = tmp_path / "hang-up"
    process = start(tmp_path / "log", *options, "--out", run)
    journal = run / "simultaneous" / "metrics.jsonl"
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 60:
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGHUP)
    assert finish(process, tmp_path / "log")[0] == 130
    assert checkpoints.load(checkpoints.saved(journal.parent)[-1])["round"] >= 60

    run, errors = tmp_path / "pipe", tmp_path / "errors"
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            command(*options, "--out", run), stdout=subprocess.PIPE, stderr=file, cwd=Path(__file__).parents[2]
        ) as piped,
    ):
        piped.stdout.readline()
        piped.stdout.close()
        assert piped.wait(60) == 130
    assert f"go on with python -m zerosum.run gan_ring --resume {run}" in errors.read_text().replace(
        "python3", "python"
    )
    assert "Traceback" not in errors.read_text()
    assert checkpoints.load(checkpoints.saved(run / "simultaneous")[-1])["round"] > 0


def test_class_folders_whose_names_are_no_utf_8(tmp_path, capsys):
    from PIL import Image

    for name in range(10):
        folder = tmp_path / "data" / os.fsdecode(b"\xff[b]%d" % name)
        folder.mkdir(parents=True)
        Image.new("L", (8, 8), 20 * name).save(folder / "x.png")
    run = tmp_path / os.fsdecode(b"[red]run\xfe")
    options = ["--rounds", "4", "--warmup", "1", "--calibration", "1", "--batch-size", "4"]
    assert main(["adasg", *options, "--data", str(tmp_path / "data"), "--out", str(run)]) == 0
    assert r"\udcff[b]0" in (run / "classes.csv").read_text(encoding="utf-8")
    assert report.main([str(run)]) == 0
    assert (run / "report.html").read_text(encoding="utf-8")
    assert compare.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert r"[red]run\udcfe" in capsys.readouterr().out
