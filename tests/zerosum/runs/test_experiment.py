"""What a recipe makes: stages in order, each with its seed, interrupted and taken up again; games without a payoff."""

import io
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.processes import lines
from tests.zerosum.games import bilinear
from zerosum import Match, Simultaneous, compare, report
from zerosum.randomness import seed_all
from zerosum.runs import Experiment, Stage
from zerosum.runs.curves import marks, panels
from zerosum.runs.run import main
from zerosum.runs.watchers import ConsoleWatcher

RECIPE = """
import os
import random
import signal
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from torch import nn
from torch.optim import Adam

from zerosum import Game, GradientNorm, Match, Player, Simultaneous, Watcher
from zerosum.runs import Experiment, Options, Outcome


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    rounds: int = 6
    side_by_side: bool = False
    diverges: str = ""
    columns: int = 0


@dataclass
class Stops(Watcher):
    name: str

    def on_round(self, match, record):
        here = f"{self.name} {record.round}"
        match.stop() if os.environ.get("STOP") == here else None
        signal.raise_signal(signal.SIGTERM) if os.environ.get("SIGNAL") == here else None


def recipe(config):
    def make(name, played):
        drawn = {"torch": torch.rand(()).item(), "numpy": np.random.rand(), "python": random.random()}
        before = {f"{other} rounds": float(match.round) for other, match in played.items()}
        layer, seen = nn.Linear(2, 1, bias=False), [] if config.side_by_side else played.values()
        target = sum(match.game.minimizer.module.weight[0, 0].item() for match in seen)

        def error(play):
            error = (play - target).square().mean()
            return error / 0 if config.diverges == name and game.round == 2 else error.expand((2,) * config.columns)

        game = Game(
            players=(Player("learner", layer, Adam(layer.parameters(), 0.1), "minimize", terms={"error": error}),),
            play=layer,
            sample=lambda: torch.randn(4, 2) + np.random.rand() + random.random(),
        )

        measure = lambda: drawn | before | {"weight": layer.weight[0, 0].item()}
        criterion = GradientNorm(torch.ones(1, 2))
        return Match(game, Simultaneous(), config.rounds, criterion, measure=measure, watchers=[Stops(name)])

    def finish(matches, folder):
        return Outcome({"played": list(matches)}, Table("a table"))

    stages = {name: lambda played, name=name: make(name, played) for name in ("first", "second", "third")}
    return Experiment(stages, finish, config.side_by_side)
"""


@pytest.fixture
def play(tmp_path):
    """Plays the recipe above into a folder, with options, and returns the exit code and the folder."""
    (tmp_path / "stages.py").write_text(RECIPE, encoding="utf-8")

    def play(name, *options):
        place = "--resume" if "--resume" in options else "--out"
        rest = [option for option in options if option != "--resume"]
        return main([str(tmp_path / "stages.py"), place, str(tmp_path / name), *rest]), tmp_path / name

    return play


def drawn(seed):
    seed_all(seed)
    return {"torch": torch.rand(()).item(), "numpy": np.random.rand(), "python": random.random()}


NAMES = ["first", "second", "third"]


def test_stages_play_in_order_see_those_before_and_have_a_seed_of_their_own(play):
    code, run = play("run", "--seed", "5")
    assert code == 0
    for place, name in enumerate(NAMES):
        found = lines(run / name)[0]["measured"]
        assert {key: found[key] for key in ("torch", "numpy", "python")} == drawn(5 + place)
        assert [key for key in found if key.endswith("rounds")] == [f"{other} rounds" for other in NAMES[:place]]
        assert all(found[f"{other} rounds"] == 6.0 for other in NAMES[:place])
        assert [line["round"] for line in lines(run / name)] == list(range(7))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["played"] == list(summary["matches"]) == NAMES
    assert [match["rounds"] for match in summary["matches"].values()] == [6, 6, 6]


def test_side_by_side_all_begin_from_the_runs_seed(play):
    _, run = play("run", "--seed", "5", "--side-by-side")
    found = [lines(run / name)[0]["measured"] for name in NAMES]
    assert [{key: one[key] for key in ("torch", "numpy", "python")} for one in found] == [drawn(5)] * 3
    assert len({one["weight"] for one in found}) == 1


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.booleans())
def test_what_a_stage_draws_does_not_depend_on_what_was_drawn_before_it(seed, other, side_by_side):
    found = []

    def make(_):
        found.append([torch.rand(()).item(), np.random.rand(), random.random()])
        return Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=1)

    experiment = Experiment(dict.fromkeys(NAMES, make), side_by_side=side_by_side)
    seed_all(other)
    goes_on = list(drawn(other).values())
    for name in NAMES:
        seed_all(other)
        experiment.begin(name, {}, seed)
    expected = [list(drawn(seed if side_by_side else seed + place).values()) for place in range(3)]
    assert found[1:] == expected[1:]
    assert found[0] == (expected[0] if side_by_side else goes_on)  # in a sequence, from where the recipe began


@pytest.mark.parametrize("stop", ["first 3", "second 1", "second 4", "third 5"])
@pytest.mark.parametrize("how", [[], ["--side-by-side"]], ids=["sequence", "side by side"])
def test_a_run_interrupted_in_a_stage_comes_to_the_same_end(how, stop, play, monkeypatch, capsys):
    _, whole = play("whole", *how)
    monkeypatch.setenv("STOP", stop)
    code, run = play("run", *how)
    assert code == 130
    assert "--resume" in capsys.readouterr().out
    name, round = stop.split()
    assert lines(run / name)[-1]["round"] == int(round)
    assert [path.name for path in sorted(run.iterdir()) if path.is_dir()] == NAMES[: NAMES.index(name) + 1]
    assert not (run / "summary.json").exists()
    monkeypatch.delenv("STOP")
    assert play("run", "--resume")[0] == 0
    for name in NAMES:
        assert (run / name / "metrics.jsonl").read_bytes() == (whole / name / "metrics.jsonl").read_bytes()
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["played"] == NAMES


def test_who_interrupts_the_last_round_of_a_stage_is_heard_before_the_next(play, monkeypatch, capsys):
    monkeypatch.setenv("SIGNAL", "first 6")
    code, run = play("run")
    assert code == 130
    assert "interrupted before second; go on with" in capsys.readouterr().out
    assert len(lines(run / "first")) == 7
    assert not (run / "second").exists()
    monkeypatch.setenv("SIGNAL", "third 6")  # after which nothing is left to play
    assert play("run", "--resume")[0] == 0


def test_a_stage_that_diverges_ends_a_sequence(play, capsys):
    code, run = play("run", "--diverges", "first")
    assert code == 3
    error = capsys.readouterr().err
    assert "round 3: the loss 'error' of 'learner' is not finite" in error
    assert "--step-scale 0.5" in error
    assert not (run / "second").exists()
    assert not (run / "summary.json").exists()
    _, run = play("other", "--diverges", "second")
    assert len(lines(run / "first")) == 7
    assert not (run / "third").exists()


def test_a_stage_that_diverges_keeps_those_beside_it_from_nothing(play, capsys):
    code, run = play("run", "--diverges", "first", "--side-by-side")
    assert code == 3
    said = capsys.readouterr()
    assert "first: round 3: the loss 'error' of 'learner' is not finite" in said.out
    assert "--step-scale" not in said.err
    assert [len(lines(run / name)) for name in NAMES] == [3, 7, 7]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert [match["rounds"] for match in summary["matches"].values()] == [2, 6, 6]
    assert summary["played"] == NAMES


@pytest.mark.parametrize(("columns", "shape"), [("1", "(2,)"), ("3", "(2, 2, 2)")])
def test_a_loss_that_is_no_scalar_is_refused_with_its_shape(columns, shape, play, capsys):
    code, _ = play("run", "--columns", columns)
    assert code == 1
    assert f"the loss 'error' of 'learner' has shape {shape}; expected a scalar: take its" in capsys.readouterr().err


def test_what_contests_nothing_is_shown_by_what_it_has(play, capsys):
    code, run = play("run", "--tensorboard")
    assert code == 0
    printed = capsys.readouterr().out
    assert "learner loss " in printed
    assert not {"payoff", "None"} & set(printed.split())
    for name in NAMES:
        journal = lines(run / name)
        assert [line["payoff"] for line in journal[1:]] == [None] * 6
        assert [panel.title for panel in panels(journal)] == ["gradient norm", "measured"]
        assert marks(journal) == []
        assert (run / name / "game.png").read_bytes().startswith(b"\x89PNG")
    assert report.main([str(run)]) == 0
    assert "gradient norm" in (run / "report.html").read_text(encoding="utf-8")
    assert compare.main([str(run)]) == 0


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_shows_the_losses_of_what_has_no_payoff(terminal):
    game = bilinear(1.0, 2.0, 0.1)
    game.payoff = None
    for player in game.players:
        player.surrogate = lambda play: (play[0] * play[1]).sum()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    Match(game, Simultaneous(), rounds=1, watchers=[ConsoleWatcher(console)]).play()
    assert "x loss" in (shown := console.file.getvalue())
    assert "payoff" not in shown


def test_an_experiment_of_one_match():
    match = Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=1)
    finish = lambda matches, folder: None  # noqa: E731
    for made in (match, Stage(match, best_by="accuracy")):
        experiment = Experiment.of(made, finish)
        assert experiment.finish is finish
        assert not experiment.side_by_side
        (name,) = experiment.stages
        state = torch.get_rng_state()
        stage = experiment.begin(name, {}, seed=7)
        assert torch.equal(torch.get_rng_state(), state)  # the recipe's seed was set before it made anything
        assert (stage.match, stage.best_by) == (match, None if made is match else "accuracy")
    assert Experiment.of(match).finish is None
