"""The league's book-keeping, with a program that plays nothing; and what its page says of figures made by hand."""

import fcntl
import signal
import subprocess
import sys
import threading
import time

import pytest
import tyro

from benchmarks.league import page, play
from benchmarks.league.play import League
from benchmarks.league.record import Book, Record, choose
from benchmarks.league.rows import COLUMNS, GAME, METHODS, Cell, Column, Row
from zerosum.runs import recipe

PROGRAM = """
import json, pathlib, sys, time
arguments = sys.argv[1:]
def given(arguments, name): return arguments[arguments.index(name) + 1]
folder = pathlib.Path(given(arguments, "--out"))
folder.mkdir(parents=True, exist_ok=True)
if not (folder / "config.json").exists():
    (folder / "config.json").write_text(json.dumps(arguments))
    if (folder.parents[2] / "hang").exists():
        time.sleep(60)
asked = json.loads((folder / "config.json").read_text())
if asked[0] == "broken":
    sys.exit(3)
step, seed = float(given(asked, "--quantized-lr")), int(given(asked, "--seed"))
summary = {"after_top1": 1e4 * step + seed, "teacher_top1": 99, "seconds": 2.5, "rounds": 10, "images": 540}
(folder / "summary.json").write_text(json.dumps(summary))
"""
DIVERGENCE = {"0.0001": 2.0, "0.0003": 1.0, "0.001": 3.0}  # while accuracy is best with the last
GDFQ = Row("gdfq", "gdfq")
COLUMN = Column("digits", "digits_resnet8", "w2a3", 10, 4, (0, 1, 2))


class ByFolder:
    """Stands in for images and for networks: the divergence is that of the step size in the folder's name."""

    def measure(self, path):
        return DIVERGENCE[path.parent.name.split("-")[1]], 50.0


@pytest.fixture
def league(tmp_path, monkeypatch):
    monkeypatch.setattr(play, "load_quantized", lambda path: path)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    program = (sys.executable, str(tmp_path / "program.py"))

    def made(name="league", rows=(GDFQ,), column=COLUMN):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        book = Book(out / "league.csv")
        return League([column], rows, out, book, {column.name: ByFolder()}, {}, program=program)

    return made


def test_the_step_size_is_chosen_by_divergence_and_then_played_with_the_other_seeds(league):
    played = league()
    assert played.left == 5
    played.play(2)
    found = {(record.step, record.seed): record.chosen for record in played.book.records()}
    others = {(3e-4, seed): True for seed in (0, 1, 2)}
    assert found == {(1e-4, 0): False, (1e-3, 0): False, **others}
    assert played.left == 0
    assert {record.images for record in played.book.records()} == {6 * 16}


def test_a_column_may_take_the_step_sizes_of_another(league):
    other = COLUMN._replace(name="other", bits="w4a4", steps_of="digits")
    assert not league(column=other).due()
    league().play(2)
    taking = league(column=other)
    assert taking.left == 3
    taking.play(2)
    found = [(r.step, r.seed, r.chosen) for r in taking.book.records() if r.column == "other"]
    assert found == [(3e-4, seed, True) for seed in (0, 1, 2)]


def test_a_cell_that_was_killed_goes_on_and_ends_the_same(league, tmp_path):
    undisturbed = league("undisturbed")
    undisturbed.play(2)
    (hang := tmp_path / "hang").touch()
    first = league()
    thread = threading.Thread(target=first.play, args=(1,))
    thread.start()
    deadline = time.monotonic() + 30
    while not list(first.out.glob("*/*/config.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    hang.unlink()
    (child,) = first.children.running
    child.send_signal(signal.SIGKILL)
    thread.join(30)
    assert first.left == 3  # itself, and two that wait for it
    again = league()
    again.play(2)
    assert again.book.path.read_bytes() == undisturbed.book.path.read_bytes()
    assert len([*again.out.glob("*/*/summary.json")]) == 5


def test_what_the_record_has_is_not_played_again_though_its_folder_is_gone(league):
    first, second = league("first"), league("second")
    first.play(2)
    second.book.path.write_bytes(first.book.path.read_bytes())
    second.play(2)
    assert not [*second.out.glob("*/*")]


def test_other_options_make_another_cell():
    cell = Cell(COLUMN, GDFQ, 1e-3, 0)
    record = Record("digits", "gdfq", 1e-3, 0, 0, cell.command)
    other = cell._replace(column=COLUMN.with_rounds(20))
    assert record.is_of(cell)
    assert not record.is_of(other)
    assert other.name != cell.name
    assert (other.column.rounds, other.column.warmup) == (20, 8)


def test_a_cell_that_fails_is_recorded_and_stops_no_other(league):
    played = league(rows=[Row("hast", "broken"), GDFQ])
    played.play(2)
    records = played.book.records()
    assert [(r.step, r.exit_code, r.chosen) for r in records if r.method == "hast"] == [
        (1e-4, 3, False),
        (3e-4, 3, False),
        (1e-3, 3, False),
    ]
    assert sum(record.method == "gdfq" for record in records) == 5
    assert "Failed: hast with 0.0001, seed 0 (diverged);" in page.table(records, "digits", ["gdfq", "hast"])


def test_a_cell_that_another_process_plays_is_left_to_it(league):
    waiting = league()
    cell = waiting.due()[0]
    folder = waiting.folder(cell)
    folder.parent.mkdir(parents=True)
    with open(f"{folder}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),))
    assert not waiting._take(cell)  # the league that began it is gone
    orphan.kill()
    orphan.wait()
    assert waiting._take(cell)
    assert cell not in waiting.due()


@pytest.mark.parametrize("row", [*METHODS, *GAME], ids=lambda row: row.name)
def test_recipes_take_the_options_of_their_rows(row):
    config = recipe.load(row.recipe).config
    arguments = Cell(COLUMNS[0], row, row.step_sizes[0], 0).arguments({})
    tyro.cli(config, args=arguments[1:]).check()


@pytest.fixture
def records():
    def made(method, seed, top1, step=1e-3, **figures):
        known = {"teacher_top1": 99.0, "seconds": 60.0, "rounds": 100, "measured_on": 400} | figures
        return Record("digits", method, step, seed, 0, f"play {method} --seed {seed}", True, top1, **known)

    adasg = [made("adasg", seed, top1, divergence=seed) for seed, top1 in enumerate((90.0, 92.0, 94.0))]
    gdfq = [made("gdfq", seed, top1) for seed, top1 in enumerate((88.0, 91.0))]
    return [*adasg, *gdfq, made("rounding", 0, 80.0, None), made("gdfq", 0, 99.9, 1e-4)._replace(chosen=False)]


@pytest.mark.parametrize(("column", "step"), [("digits", 1e-3), ("cifar-w2a2", 1e-4)])
def test_where_networks_are_lost_agreement_chooses(column, step, records):
    figures = {1e-4: (6.6, 23.4), 3e-4: (6.7, 19.1), 1e-3: (6.3, 13.7)}  # the last says the same of all images
    cells = [
        records[0]._replace(column=column, step=size, divergence=divergence, agreement_on_generated=agreement)
        for size, (divergence, agreement) in figures.items()
    ]
    assert [record.step for record in choose(cells) if record.chosen] == [step]


def test_the_table_has_means_deviations_and_intervals(records):
    lines = page.table(records, "digits", ["adasg", "gdfq", "rounding"]).splitlines()
    # Student's t at 97.5 %: 4.303 with two degrees of freedom, 12.706 with one.
    assert lines[2] == "| adasg | 92.0 | 2.0 | 3 | ± 5.0 |  | 1.000 |  | 60 | 100 |  | 0.001 |"
    assert lines[3] == "| gdfq | 89.5 | 2.1 | 2 | ± 19.1 | -1.5 ± 6.4 |  |  | 60 | 100 |  | 0.001 |"
    assert lines[4] == "| rounding | 80.0 |  | 1 |  | -10.0 |  |  | 60 | 100 |  |  |"
    assert "on 400 real images" in lines[6]
    assert "of one network with 92.0 % is 1.4 points" in lines[6]  # the root of 0.92 · 0.08 / 400
    assert lines[-4:] == ["play adasg --seed 0", "play gdfq --seed 0", "play rounding --seed 0", "```"]


def test_a_page_is_written_anew_between_its_marks_alone(records, tmp_path):
    path = tmp_path / "league.md"
    path.write_text("By hand.\n\n<!-- table: digits -->\nold\n<!-- end -->\n\nBy hand too.\n", encoding="utf-8")
    for _ in range(2):
        page.write_page(records, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("By hand.\n\n<!-- table: digits -->\n\n| method")
    assert text.endswith("```\n\n<!-- end -->\n\nBy hand too.\n")
    assert "old" not in text
    assert text.count("| adasg |") == 1
    assert path.with_suffix(".png").stat().st_size > 1000
    assert page.blank_page().count("<!-- end -->") == 1 + 2 * len(COLUMNS)


def test_a_book_gives_back_what_was_added(records, tmp_path):
    book = Book(tmp_path / "league.csv")
    for record in records[:2]:
        book.add(record)
    assert [record._replace(chosen=True) for record in book.records()] == records[:2]


def test_records_of_other_options_do_not_stay_beside_those_of_todays(records, tmp_path):
    book = Book(tmp_path / "league.csv")
    for record in records:
        book.add(record._replace(command=f"play {record.method} --quantized-lr 0.1 --seed {record.seed}"))
    book.add(records[0]._replace(command="play adasg --more --quantized-lr 0.1 --seed 0"))
    kept = [(record.method, record.seed) for record in book.records()]
    assert kept.count(("adasg", 0)) == 1
    assert not {("adasg", 1), ("adasg", 2)} & set(kept)
    assert len(kept) == len(records) - 2
