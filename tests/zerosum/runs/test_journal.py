"""A journal is read as far as it is whole: while it is written, after a kill, after a power cut."""

import json
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zerosum.games import bilinear
from zerosum import Match, Simultaneous, Watcher, compare, report
from zerosum.runs.run import main as play
from zerosum.runs.watchers import Journal
from zerosum.runs.watchers.journal import read

LINES = [{"round": round, "payoff": -0.5 * round, "losses": {"x": {"a": 1e-9}}} for round in range(4)]
CONTENT = "".join(json.dumps(line) + "\n" for line in LINES).encode()
ENDS = {
    "half": b'{"round": 5, "payoff": -1.',
    "half a character": '{"round": 5, "é'.encode()[:-1],
    "empty": b"\n",
    "zeros": bytes(512),
    "half and zeros": b'{"round": 5, "pay' + bytes(512),
    "empty and zeros": b"\n" + bytes(512),
}


@given(st.integers(0, len(CONTENT)), st.integers(0, 9))
def test_cut_anywhere_it_has_the_lines_that_are_whole(tmp_path_factory, cut, zeros):
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(CONTENT[:cut] + bytes(zeros))
    whole = sum(len(b"\n".join(CONTENT.split(b"\n")[: count + 1])) <= cut for count in range(len(LINES)))
    assert read(path) == LINES[:whole]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_whatever_a_broken_off_line_is_the_ones_before_it_are_read(end, tmp_path):
    (tmp_path / "j").write_bytes(CONTENT + end)
    assert read(tmp_path / "j") == LINES


@pytest.mark.parametrize("damage", [b'{"round": 1, "pay', b"", bytes(8), b"[1]", b'{"round": "1"}', b"\xff", b"x"])
def test_damage_before_the_last_line_is_refused_with_the_path(damage, tmp_path):
    path = tmp_path / "j"
    first, _, *rest = CONTENT.split(b"\n")
    path.write_bytes(b"\n".join([first, damage, *rest]))
    with pytest.raises(ValueError, match="cannot be read") as raised:
        read(path)
    assert str(raised.value).startswith(f"{path} cannot be read (")


def test_it_is_read_while_it_is_written(tmp_path):
    """All that is read is a beginning of what there is in the end."""
    path, found, ended = tmp_path / "j", [], threading.Event()

    def look():
        while not ended.wait(0.001):
            if path.exists():
                found.append(read(path))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        Match(bilinear(1.0, 2.0, 0.1), Simultaneous(), 60, watchers=[Journal(path, every=1)]).play()
    finally:
        ended.set()
        reader.join()
    last = read(path)
    assert [line["round"] for line in last] == list(range(61))
    assert found
    assert all(lines == last[: len(lines)] for lines in found)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    few = ["--rounds", "3", "--warmup", "1", "--calibration", "1", "--batch-size", "4", "--block-steps", "0"]
    assert play(["adasg", *few, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_report_and_a_comparison_of_what_was_broken_off(end, run, tmp_path, capsys):
    path = run / "metrics.jsonl"
    content = path.read_bytes()
    try:
        path.write_bytes(content + end)
        assert report.main([str(run), "--out", str(tmp_path / "report.html")]) == 0
        assert compare.main([str(run), "--out", str(tmp_path / "out")]) == 0
        path.write_bytes(b"")
        assert report.main([str(run), "--out", str(tmp_path / "report.html")]) == 0
        assert compare.main([str(run), "--out", str(tmp_path / "out")]) == 0
    finally:
        path.write_bytes(content)
    assert capsys.readouterr().err == ""


def test_a_report_and_a_comparison_of_a_damaged_one_name_it(run, tmp_path, capsys):
    run = shutil.copytree(run, tmp_path / "run")
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))
    for command in (report, compare):
        assert command.main([str(run), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.startswith(f"zerosum: {path} cannot be read (")
    assert not (tmp_path / "out").is_file()


def test_a_report_while_the_run_is_played(tmp_path):
    """From within, so that a line is half on the disk for sure."""
    codes = []

    class Looks(Watcher):
        def on_round(self, match, record):
            journal.flush()
            with journal.path.open("ab") as file:
                file.write(b'{"round": %d, "pay' % (record.round + 1))
            codes.append(report.main([str(tmp_path)]))
            with journal.path.open("rb+") as file:
                file.truncate(file.read().rindex(b"\n") + 1)

    other = tmp_path / "other"
    assert play(["saddle", "--rounds", "2", "--dynamics", "simultaneous", "--out", str(other)]) == 0
    (tmp_path / "config.json").write_bytes((other / "config.json").read_bytes())
    journal = Journal(tmp_path / "metrics.jsonl")
    Match(bilinear(1.0, 2.0, 0.1), Simultaneous(), 3, watchers=[journal, Looks()]).play()
    assert codes == [0, 0, 0]
    assert "This run is not finished" in (tmp_path / "report.html").read_text(encoding="utf-8")
