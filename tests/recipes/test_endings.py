"""Commands that are not alone, and those that nobody listens to any more."""

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import zerosum
from tests.processes import context, finish, start
from zerosum.runs import checkpoints, compare, report, run_folder
from zerosum.runs.recipe import Recipe
from zerosum.runs.run import main


class Then:
    now = staticmethod(lambda: datetime.datetime(2026, 1, 1))


def test_commands_in_threads(tmp_path):
    before = threading.active_count()
    with ThreadPoolExecutor(2) as threads:
        runs = [["matrix_game", "--seed", str(seed), "--out", str(tmp_path / str(seed))] for seed in range(2)]
        assert list(threads.map(main, runs)) == [0, 0]
        folders = [str(tmp_path / "0"), str(tmp_path / "1")]
        assert threads.submit(report.main, folders[:1]).result() == 0
        assert threads.submit(compare.main, [*folders, "--out", str(tmp_path / "out")]).result() == 0
    assert threading.active_count() == before


FEW = ["--dynamics", "simultaneous", "--rounds", "40"]


def test_starts_at_once_leave_one_run_in_a_folder_and_a_folder_for_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs = [tmp_path / f"log{n}" for n in range(3)]
    processes = [start(log, "gan_ring", *FEW, "--out", tmp_path / "run", "--seed", n) for n, log in enumerate(logs)]
    ends = [finish(process, log) for process, log in zip(processes, logs, strict=True)]
    assert sorted(code for code, _ in ends) == [0, 2, 2]
    winner = [code for code, _ in ends].index(0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["seed"] == winner
    assert "Traceback" not in "".join(out for _, out in ends)

    monkeypatch.setattr("zerosum.runs.run_folder.datetime", Then)
    for _ in range(3):
        assert main(["matrix_game"]) == 0
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"matrix_game-20260101-000000" + end for end in ("", "-2", "-3")}


def files(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


QUICK = ["saddle", "--dynamics", "simultaneous", "--rounds", "3"]


@pytest.mark.parametrize("ahead", ["finished", "began"])
def test_who_comes_second_to_a_folder_writes_nothing(ahead, tmp_path, monkeypatch, capsys):
    """The folder is free when it looks first; another is there before it can take it."""
    run, found, make = tmp_path / "run", {}, Recipe.make

    def overtaken(recipe, options):
        if options.seed == 1 and ahead == "finished":
            assert main([*QUICK, "--seed", "2", "--out", str(run)]) == 0
        elif options.seed == 1:
            run.mkdir()
            held.enter_context(run_folder.hold(run))
        found.update(files(run))
        return make(recipe, options)

    monkeypatch.setattr(Recipe, "make", overtaken)
    with ExitStack() as held:
        assert main([*QUICK, "--seed", "1", "--out", str(run)]) == 2
        expected = "the folder holds another run" if ahead == "finished" else "another process is playing that run"
        assert expected in capsys.readouterr().err
        assert files(run) == found
        assert (len(found) > 1) == (ahead == "finished")


def play_then(barrier, folder, arguments):
    os.chdir(folder)
    run_folder.datetime = Then
    barrier.wait()
    sys.exit(main(arguments))


def test_processes_that_start_within_one_second_have_a_folder_each(tmp_path):
    barrier = context.Barrier(2)
    arguments = [[*QUICK, "--seed", str(seed)] for seed in range(2)]
    processes = [context.Process(target=play_then, args=(barrier, tmp_path, given)) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["saddle-20260101-000000", "saddle-20260101-000000-2"]
    assert {run_folder.read_config(folder)["options"]["seed"] for folder in folders} == {0, 1}
    assert all((folder / "summary.json").exists() for folder in folders)


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


# Each in a process that ends by itself, forked from one that has imported what takes seconds.
COMMANDS = """
import json, os, runpy, sys
import zerosum.recipes.adasg, zerosum.runs.run

ends = {}
for name, arguments in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{name}.err", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["python -m", *arguments]
        sys.exit(runpy.run_module(f"zerosum.{name}", run_name="__main__", alter_sys=True))
    ends[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with open("ends.json", "w") as file:
    json.dump(ends, file)
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_the_other_commands_do_their_work_though_nobody_reads(tmp_path):
    """As before ``| head -0``."""
    run, out, game = (tmp_path / name for name in ("run", "out", "game"))
    few = ["--rounds", "2", "--warmup", "1", "--block-steps", "0", "--calibration", "1", "--batch-size", "4"]
    assert main(["adasg", *few, "--out", str(run)]) == 0
    assert main([*QUICK, "--out", str(game)]) == 0
    asked = {
        "report": [game],
        "compare": [game, "--out", out],
        "export": [run, "--format", "pt2"],
        "run": ["saddle", "--help"],
        "__main__": ["--help"],
    }
    reader, writer = os.pipe()
    os.close(reader)
    given = json.dumps({name: list(map(str, arguments)) for name, arguments in asked.items()})
    subprocess.run([sys.executable, "-c", COMMANDS, given], stdout=writer, cwd=tmp_path, check=True)
    os.close(writer)
    ends = json.loads((tmp_path / "ends.json").read_text(encoding="utf-8"))
    assert {name: (tmp_path / f"{name}.err").read_text(encoding="utf-8") for name in asked} == dict.fromkeys(asked, "")
    assert ends == {"report": 0, "compare": 0, "export": 0, "run": 130, "__main__": 130}
    assert (game / "report.html").read_text(encoding="utf-8").endswith("</html>")
    assert (out / "compare.csv").exists()
    assert (run / "quantized.pt2").exists()


def test_class_folders_whose_names_are_no_utf_8(tmp_path, capsys):
    from PIL import Image

    for name in range(10):
        folder = tmp_path / "data" / os.fsdecode(b"\xff[b]%d" % name)
        folder.mkdir(parents=True)
        Image.new("L", (8, 8), 20 * name).save(folder / "x.png")
    run = tmp_path / os.fsdecode(b"[red]run\xfe")
    options = ["--rounds", "4", "--warmup", "1", "--calibration", "1", "--batch-size", "4", "--block-steps", "0"]
    assert main(["adasg", *options, "--data", str(tmp_path / "data"), "--out", str(run)]) == 0
    assert r"\udcff[b]0" in (run / "classes.csv").read_text(encoding="utf-8")
    assert zerosum.load(run) is not None
    assert report.main([str(run)]) == 0
    assert (run / "report.html").read_text(encoding="utf-8")
    assert compare.main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert r"[red]run\udcfe" in capsys.readouterr().out
