"""The examples of docs/games.md run as they stand, and do what the page says."""

import re
from pathlib import Path

import pytest
import torch

from tests.zerosum.games import bilinear, position, saddle
from zerosum import Match, Patience, Simultaneous

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "games.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def run(mark):
    """The namespace that the one example with ``mark`` in it leaves behind."""
    (example,) = [text for text in EXAMPLES if mark in text]
    assert len(example.splitlines()) < 40
    space = {"__name__": "example"}
    exec(compile(example, "docs/games.md", "exec"), space)
    return space


def test_every_example_is_tested_here():
    marks = [
        "multiplier",
        "payoffs",
        "class Constant",
        "def wasserstein",
        "class Anchored",
        "class Resting",
        "Balanced",
    ]
    assert len(EXAMPLES) == len(marks)
    assert all(sum(mark in text for text in EXAMPLES) == 1 for mark in marks)


def test_rounds_are_given_to_the_slower_player():
    space = run("Balanced")
    assert space["guide"].lagging == "minimize"
    x, y, match = space["x"].weight, space["y"].weight, space["match"]
    before = x.item(), y.item()
    match.rounds = 40
    match.play()
    assert x.item() == before[0]
    assert y.item() == pytest.approx(0.995**18 * (before[1] + x.item() / 10) - x.item() / 10, rel=1e-4)
    match.rounds = 41
    match.play()
    assert x.item() != before[0]


def test_the_constrained_problem():
    """Lagrange by hand: 2 (y - (3, 1)) + λ (1, 1) = 0 and y₁ + y₂ = 2 give y = (2, 0), λ = 2."""
    space = run("multiplier")
    assert space["point"].value.tolist() == pytest.approx([2, 0], abs=1e-4)
    assert space["multiplier"].value.item() == pytest.approx(2, abs=1e-4)
    assert space["match"].verdict.stationary


def test_the_matrix_game():
    space = run("payoffs")
    assert space["row"]().tolist() == pytest.approx([3 / 7, 4 / 7], abs=1e-3)
    assert space["column"]().tolist() == pytest.approx([2 / 7, 5 / 7], abs=1e-3)


def test_the_player_of_ones_own():
    space = run("class Constant")
    assert space["fit"].value.item() == pytest.approx(2, abs=1e-3)
    assert space["weights"]().tolist() == pytest.approx([0.5, 0, 0.5], abs=1e-3)


def test_the_payoff_of_ones_own():
    space = run("def wasserstein")
    assert space["shift"].bias.item() == pytest.approx(2, abs=0.3)
    assert abs(space["shift"].weight.item()) == pytest.approx(1, abs=0.4)


def test_the_dynamics_of_ones_own_find_a_saddle_that_simultaneous_play_leaves():
    rule = run("class Anchored")["Anchored"]()
    game = bilinear(1.0, 1.0, 0.3)
    Match(game, rule, rounds=3000).play()
    assert position(game).norm().item() < 0.1
    plain = bilinear(1.0, 1.0, 0.3)
    Match(plain, Simultaneous(), rounds=300).play()
    assert position(plain).norm().item() > 100
    again = run("class Anchored")["Anchored"]()
    again.load_state_dict(rule.state_dict())
    assert again.rounds == 3000


def test_the_criterion_of_ones_own_stops_a_match():
    criterion = run("class Resting")["Resting"](tolerance=1e-8)
    match = Match(
        saddle(3.0, -2.0, step=0.1), Simultaneous(), 10_000, Patience(criterion, 3), stop_when_stationary=True
    )
    match.play()
    assert match.round < 10_000
    assert "3 of 3 readings in a row" in match.verdict.reason
    torch.testing.assert_close(position(match.game), torch.tensor([0.8, 0.6]).double(), atol=1e-6, rtol=0)
