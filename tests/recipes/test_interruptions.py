"""Nothing is lost: runs that are interrupted, killed, or out of disk, on the embedded network."""

import json
import os
import random
import shutil
import signal
import subprocess

import pytest
import torch

from tests.processes import finish, lines, start, wait_for_rounds
from zerosum.runs import checkpoints
from zerosum.runs.run import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

SMALL = ["--warmup", "5", "--gap-every", "5", "--calibration", "1", "--measure-every", "15", "--batch-size", "8"]
RUN = ["adasg", *SMALL, "--rounds", "40", "--block-steps", "0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*RUN, "--out", str(folder)]) == 0
    return folder


def assert_same_end(folder, whole):
    assert lines(folder) == lines(whole)
    assert [line["round"] for line in lines(folder)] == list(range(41))
    name = "quantized.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_interrupted_by_ctrl_c_and_by_sigterm_goes_on_to_the_same_end(whole, tmp_path, capsys):
    folder, again = tmp_path / "run", ["adasg", "--resume", str(tmp_path / "run")]
    for number, arguments in {signal.SIGINT: [*RUN, "--out", folder], signal.SIGTERM: again}.items():
        before = len(lines(folder)) if folder.exists() else 0
        process = start(tmp_path / "log", *arguments, "--checkpoint-every", "0")  # so that each round is told at once
        wait_for_rounds(process, folder, before + 10)
        os.kill(process.pid, number)
        code, out = finish(process, tmp_path / "log")
        assert code == 130
        assert f"adasg --resume {folder}" in out
        assert not (folder / "summary.json").exists()
    assert main(again) == 0
    assert_same_end(folder, whole)
    resumed = json.loads((folder / "config.json").read_text())["resumed"]
    given = [entry["command"].rpartition("zerosum.run ")[2] for entry in resumed]
    assert given == [f"adasg --resume {folder} --checkpoint-every 0", f"adasg --resume {folder}"]
    assert main(["adasg", "--resume", str(folder)]) == 2
    assert "that run is finished" in capsys.readouterr().err


def test_a_run_that_is_played_is_left_to_who_plays_it(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    process = start(tmp_path / "log", *RUN, "--out", folder)
    wait_for_rounds(process, folder, 1)
    config = (folder / "config.json").read_bytes()
    assert main(["adasg", "--resume", str(folder)]) == 2
    assert "another process is playing that run" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == config
    assert finish(process, tmp_path / "log")[0] == 0
    assert_same_end(folder, whole)


KILLS, WRITES = 6, ("fsync", "replace", "after replace")


def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(whole, tmp_path):
    """By the clock and within a write in turn: before it has its name, about to get it, with it, and before."""
    chance = random.Random(0)
    kills, runs = 0, 0
    while kills < KILLS:
        runs += 1
        folder, log = tmp_path / f"run{runs}", tmp_path / f"log{runs}"
        while not (folder / "summary.json").exists():
            again = ["adasg", "--resume", folder] if (folder / "config.json").exists() else [*RUN, "--out", folder]
            clock = kills % 2 or kills >= KILLS
            killed_at = None if clock else (WRITES[kills // 2 % 3], chance.randint(1, 40))
            process = start(log, *again, "--checkpoint-every", "0", killed_at=killed_at)
            if kills < KILLS:
                process.join(chance.uniform(0, 1.5) if clock else 60)
                process.kill()
            code, out = finish(process, log)
            assert code in (0, -signal.SIGKILL), out
            kills += code != 0
            for path in checkpoints.saved(folder):
                assert checkpoints.load(path)["round"] == int(path.name[:8])
        assert_same_end(folder, whole)


def interrupted(tmp_path, folder):
    process = start(tmp_path / "log", *RUN, "--checkpoint-every", "0", "--out", folder)
    wait_for_rounds(process, folder, 15)
    os.kill(process.pid, signal.SIGINT)
    assert finish(process, tmp_path / "log")[0] == 130


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was interrupted with a checkpoint of every round."""
    folder = tmp_path_factory.mktemp("stopped")
    interrupted(folder, folder / "run")
    return folder / "run"


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def spoil(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content[:middle] if how == "truncated" else flipped)


@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(how, whole, folder, capsys):
    _, before, newest = checkpoints.saved(folder)
    spoil(newest, how)
    assert main(["adasg", "--resume", str(folder)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{newest} is damaged" in out
    assert f"going on from the one before, of round {int(before.name[:8])}" in out
    assert_same_end(folder, whole)


def test_where_all_checkpoints_are_damaged_the_run_says_so(folder, capsys):
    for path in checkpoints.saved(folder):
        spoil(path, "truncated")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "config.json"}
    assert main(["adasg", "--resume", str(folder)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_run_that_stopped_before_its_first_checkpoint_starts_anew(whole, tmp_path):
    folder = tmp_path / "run"
    process = start(tmp_path / "log", *RUN, "--out", folder, killed_at=("after replace", 1))  # config.json is written
    assert finish(process, tmp_path / "log")[0] == -signal.SIGKILL
    assert not checkpoints.saved(folder)
    assert main(["adasg", "--resume", str(folder)]) == 0
    assert_same_end(folder, whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own: mount it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)

    if mount("size=12m").returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_run_with_its_last_good_state(whole, small_disk, capsys):
    disk, remount = small_disk
    folder = disk / "run"
    assert main([*RUN, "--checkpoint-every", "0", "--checkpoints", "9", "--out", str(folder)]) == 4
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert f"adasg --resume {folder}" in error
    assert not list(folder.rglob("*.part"))
    good = checkpoints.saved(folder)
    assert len(good) > 1  # of some 3 MB each
    assert all(checkpoints.load(path) for path in good)
    remount("size=64m")
    assert main(["adasg", "--resume", str(folder)]) == 0
    assert_same_end(folder, whole)


def test_a_folder_that_cannot_be_written(whole, stopped, small_disk, capsys):
    disk, remount = small_disk
    remount("size=64m")
    folder = shutil.copytree(stopped, disk / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    remount("ro")
    assert main([*RUN, "--out", str(disk / "other")]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    assert main(["adasg", "--resume", str(folder)]) == 2
    assert "Read-only file system" in capsys.readouterr().err
    remount("rw")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert main(["adasg", "--resume", str(folder)]) == 0
    assert_same_end(folder, whole)


def test_the_best_is_kept(whole):
    (best,) = (whole / "checkpoints").glob("best-*")
    measured = {
        line["round"]: line["measured"]["top1"] for line in lines(whole) if "measured" in line and line["round"]
    }
    assert checkpoints.load(best)["round"] == max(measured, key=lambda round: (measured[round], -round))
    assert torch.load(best, weights_only=True)["round"] > 0
