"""The recipes of games whose answers are known, through the command line."""

import json
import math
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests.processes import finish, start, wait_for_rounds
from tests.recipes.test_refusals import refused
from zerosum.recipes.common.payoffs import exact_solution, payoff_matrix
from zerosum.runs import checkpoints
from zerosum.runs.run import main


def run(folder, recipe, *options):
    assert main([recipe, *options, "--out", str(folder)]) == 0
    return json.loads((folder / "summary.json").read_text())


def is_a_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and len(set(image.convert("L").tobytes())) > 10


def test_saddle_measures_the_rates_of_theory(tmp_path):
    step = 0.3
    summary = run(tmp_path / "run", "saddle", "--step", str(step), "--rounds", "60")
    optimistic = max(abs(np.roots([1, -(1 + 2j * step), 1j * step])))  # of w' = w + 2iη w - iη w⁻
    lookahead = abs(0.5 + 0.5 * (1 + 1j * step) ** 5) ** (1 / 5)
    expected = {
        "simultaneous": math.sqrt(1 + step**2),
        "extragradient": math.sqrt(1 - step**2 + step**4),
        "consensus": math.sqrt((1 - step) ** 2 + step**2),
        "symplectic": math.sqrt((1 - step) ** 2 + step**2),
        "lookahead": lookahead,
    }
    for name, rate in expected.items():
        assert summary[name]["rate"] == pytest.approx(rate, rel=1e-6), name
    assert summary["optimistic"]["rate"] == pytest.approx(optimistic, rel=1e-3)
    assert summary["alternating"]["rate"] == pytest.approx(1, abs=0.02)
    assert set(summary["matches"]) == set(expected) | {"optimistic", "alternating"}
    assert is_a_picture(tmp_path / "run" / "trajectories.png")
    assert {p.name for p in (tmp_path / "run" / "lookahead").iterdir()} == {
        "metrics.jsonl",
        "checkpoints",
        "game.png",
    }


@pytest.mark.parametrize("game", ["quadratic", "dirac-gan"])
def test_saddle_plays_its_other_games(game, tmp_path):
    summary = run(tmp_path / "run", "saddle", "--game", game, "--dynamics", "extragradient", "--rounds", "300")
    assert summary["extragradient"]["distance"] < (1e-6 if game == "quadratic" else 0.5)
    assert list(summary["matches"]) == ["extragradient"]


def test_a_game_that_runs_off_to_infinity_is_told_and_drawn(tmp_path, capsys):
    options = ["--dynamics", "simultaneous", "alternating", "--step", "1e3", "--rounds", "200"]
    assert main(["saddle", *options, "--out", str(tmp_path / "run")]) == 3
    out, error = capsys.readouterr()
    assert "simultaneous: round 5" in out  # at (1e3)^(2 * round)
    assert "is not finite" in error

    def no_such_number(name):
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=no_such_number)
    assert set(summary["matches"]) == {"simultaneous", "alternating"}  # one keeps the other from nothing
    journal = (tmp_path / "run" / "simultaneous" / "metrics.jsonl").read_text().splitlines()
    assert len(journal) == summary["matches"]["simultaneous"]["rounds"] + 1
    assert is_a_picture(tmp_path / "run" / "trajectories.png")


@pytest.mark.parametrize("options", [[], ["--move", "multiplicative", "--average"], ["--dynamics", "optimistic"]])
def test_rock_paper_scissors_is_solved(options, tmp_path):
    summary = run(tmp_path / "run", "matrix_game", "--payoff", "rps", *options)
    assert summary["row_strategy"] == pytest.approx([1 / 3] * 3, abs=1e-3)
    assert summary["column_strategy"] == pytest.approx([1 / 3] * 3, abs=1e-3)
    assert summary["value"] == pytest.approx(0, abs=1e-3)
    assert summary["exploitability"] <= 1e-3
    assert summary["stationary"] is True
    assert is_a_picture(tmp_path / "run" / "strategies.png")


def test_a_matrix_of_ones_own_is_solved_beside_the_linear_program(tmp_path, capsys):
    payoffs = np.random.default_rng(0).normal(size=(7, 12)) * 50  # in units of its own, not within [-1, 1]
    np.savetxt(tmp_path / "game.csv", payoffs, delimiter=",")
    summary = run(tmp_path / "run", "matrix_game", "--payoff", str(tmp_path / "game.csv"), "--tolerance", "1e-3")
    assert summary["value"] == pytest.approx(exact_solution(payoffs)[0], abs=1e-3)
    assert summary["exploitability"] <= 1e-3
    assert sum(summary["row_strategy"]) == pytest.approx(1)
    assert len(summary["column_strategy"]) == 12
    assert "linear program" in capsys.readouterr().out


def test_the_linear_program_by_hand():
    assert exact_solution(payoff_matrix("matching-pennies")[0])[0] == pytest.approx(0, abs=1e-12)
    value, row, column = exact_solution(np.array([[3.0, -1.0], [-2.0, 1.0]]))  # equalize: 3p - 2(1-p) = -p + (1-p)
    assert value == pytest.approx(1 / 7)
    assert row == pytest.approx([3 / 7, 4 / 7])
    assert column == pytest.approx([2 / 7, 5 / 7])


def test_blotto_is_what_its_rules_say():
    payoffs, rows, columns = payoff_matrix("blotto")
    assert payoffs.shape == (21, 21)  # 5 soldiers on 3 fields: 7 over 2 placings
    assert (payoffs == -payoffs.T).all()
    assert payoffs[rows.index("3-1-1"), columns.index("0-0-5")] == 1  # two fields won, one lost
    assert exact_solution(payoffs)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("content", "message"),
    [("1,x", "expected lines of numbers"), ("", "expected a matrix"), ("1,nan", "finite")],
)
def test_payoffs_that_are_no_matrix_are_refused(content, message, tmp_path, capsys):
    (tmp_path / "game.csv").write_text(content)
    assert message in refused(capsys, tmp_path, "matrix_game", "--payoff", str(tmp_path / "game.csv"))
    assert "neither rps" in refused(capsys, tmp_path, "matrix_game", "--payoff", "chess")


def test_other_bad_input_is_refused(tmp_path, capsys):
    twice = refused(capsys, tmp_path, "saddle", "--dynamics", "optimistic", "optimistic")
    assert "--dynamics optimistic optimistic: expected one or more, each once" in twice
    assert "--epsilon -1.0" in refused(capsys, tmp_path, "robust_digits", "--epsilon", "-1")


def test_adversarial_training_withstands_what_ordinary_training_does_not(tmp_path):
    options = ["--rounds", "60", "--steps", "2", "--attack-starts", "1", "--attack-steps", "20"]
    summary = run(tmp_path / "run", "robust_digits", *options)
    adversarial, ordinary = summary["adversarial"], summary["ordinary"]
    assert min(adversarial["clean_accuracy"], ordinary["clean_accuracy"]) > 90
    assert adversarial["robust_accuracy"] >= ordinary["robust_accuracy"] + 20
    assert is_a_picture(tmp_path / "run" / "attacked.png")


def test_a_gan_says_which_modes_it_covers(tmp_path):
    summary = run(tmp_path / "run", "gan_ring", "--dynamics", "alternating", "--rounds", "700")
    assert summary["alternating"]["modes_covered"] >= 6
    assert is_a_picture(tmp_path / "run" / "rings.png")


def test_a_seed_fixes_each_match_of_a_contest_as_if_it_were_alone(tmp_path):
    options = ["--rounds", "20", "--samples", "50", "--width", "8"]
    run(tmp_path / "three", "gan_ring", *options)
    run(tmp_path / "alone", "gan_ring", *options, "--dynamics", "extragradient")
    both = [(tmp_path / name / "extragradient" / "metrics.jsonl").read_text() for name in ("three", "alone")]
    assert both[0] == both[1]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_interrupted_contest_goes_on_to_the_same_end(tmp_path, capsys):
    options = ["--rounds", "160", "--samples", "50", "--width", "8"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(tmp_path / "log", "gan_ring", *options, "--out", broken)
    while not (broken / "alternating").exists():  # the second match
        assert process.is_alive()
        time.sleep(0.02)
    wait_for_rounds(process, broken / "alternating", 50)
    os.kill(process.pid, signal.SIGINT)
    code, out = finish(process, tmp_path / "log")
    assert code == 130
    assert f"gan_ring --resume {broken}" in out
    assert not (broken / "extragradient").exists()

    assert main(["gan_ring", "--resume", str(broken)]) == 0
    run(whole, "gan_ring", *options)
    for name in ("simultaneous", "alternating", "extragradient"):
        assert (broken / name / "metrics.jsonl").read_text() == (whole / name / "metrics.jsonl").read_text()
    figures = [json.loads((folder / "summary.json").read_text()) for folder in (broken, whole)]
    assert figures[0]["extragradient"] == figures[1]["extragradient"]
    assert figures[0]["alternating"]["modes_covered"] == figures[1]["alternating"]["modes_covered"]
    assert checkpoints.load_newest(broken / "alternating")[0]["round"] == 160
