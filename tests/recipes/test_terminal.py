"""What is on a terminal's screen while a run is played, and what is left there."""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from rich.live import Live

from tests.zerosum.games import bilinear
from zerosum import Match, Simultaneous
from zerosum.players import progress
from zerosum.runs.messages import output, say
from zerosum.runs.watchers import ConsoleWatcher

LINES, COLUMNS = 200, 250
TOKEN = re.compile(r"\x1b\[([?;\d]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """As much of a terminal as rich uses, as tall as it takes: nothing scrolls away."""

    def __init__(self):
        self.rows, self.row, self.column = [[]], 0, 0
        self.most_panels = 0

    def feed(self, text):
        for count, action, character in TOKEN.findall(text):
            if action == "A":
                self.row = max(0, self.row - int(count or 1))
            elif action == "K":
                assert count == "2", count
                self.rows[self.row] = []
            elif action:
                assert action in "mhl", action  # colours, and whether there is a cursor
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [[]] * (self.row == len(self.rows))
            else:
                line = self.rows[self.row]
                line += " " * (self.column + 1 - len(line))
                line[self.column] = character
                self.column += 1
                assert self.column <= COLUMNS
                if character == "╭":
                    self.most_panels = max(self.most_panels, str(self).count("╭"))

    def __str__(self):
        return "\n".join("".join(row).rstrip() for row in self.rows)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _size(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rich._console", None)  # another one, that sees this


def measured():
    assert list(progress("abc", "measuring", 3)) == ["a", "b", "c"]
    return {"images": 3.0}


def test_a_bar_is_on_a_terminal_alone_and_not_beside_another_display():
    with redirect_stdout(Terminal()) as alone:
        measured()
    assert "measuring" in alone.getvalue()
    with redirect_stdout(Terminal()) as shared, Live("a panel", console=output()):
        measured()
    assert "a panel" in shared.getvalue()
    assert "measuring" not in shared.getvalue()
    with redirect_stdout(io.StringIO()) as file:
        measured()
    assert file.getvalue() == ""


def test_measurements_leave_the_panel_whole(monkeypatch):
    update = Live.update
    monkeypatch.setattr("zerosum.runs.watchers.console._SECONDS_A_LOOK", 0)
    monkeypatch.setattr(Live, "update", lambda live, panel: update(live, panel, refresh=True))
    with redirect_stdout(Terminal()) as terminal:
        watchers = [ConsoleWatcher(output())]
        Match(bilinear(1.0, 2.0, 0.1), Simultaneous(), 20, measure=measured, measure_every=1, watchers=watchers).play()
    screen = Screen()
    screen.feed(terminal.getvalue())
    assert "measuring" not in terminal.getvalue().partition("╭")[2]  # before it, round 0 has a bar
    assert screen.most_panels == 1
    assert str(screen).strip() == ""


def test_a_notebook_gets_plain_lines_though_its_kernel_forces_colours(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel does, by which rich takes its stream for a terminal
    watchers = [ConsoleWatcher(output())]
    Match(bilinear(1.0, 2.0, 0.1), Simultaneous(), 20, watchers=watchers).play()
    say("something is missing")
    said, wrong = capsys.readouterr()
    assert [line.split(",")[0] for line in said.splitlines()] == ["round 1/20", "round 20/20"]
    assert wrong == "zerosum: something is missing\n"  # not a page of HTML, which would go elsewhere
    assert "\x1b" not in said


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_run_on_a_pseudo_terminal(tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    options = ["--rounds", "40", "--warmup", "4", "--calibration", "4", "--measure-every", "4"]
    options += ["--block-steps", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zerosum.run", "adasg", *options, "--out", str(tmp_path / "run")],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm-256color"},
    )
    os.close(its)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # how Linux says that nobody has the other end any more
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = said.decode()
    assert "measuring the full-precision network" in text  # before there is a panel
    screen = Screen()
    screen.feed(text)
    left = str(screen)
    assert screen.most_panels == 1
    assert not set("╭╮╰╯") & set(left)
    assert f"kept in {tmp_path / 'run'}" in left
    assert not re.search("measuring|observing|━ +[0-9]+/", left)
