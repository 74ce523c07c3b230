import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.zerosum.games import bilinear, position, saddle
from zerosum import Alternating, BalanceGap, Match, Simultaneous

coordinates = st.floats(-10, 10)


@given(coordinates, coordinates, st.floats(1e-3, 1.0))
def test_gain_drop_and_gap_are_what_their_definitions_say(x, y, step):
    game = bilinear(x, y, step)
    criterion = BalanceGap(probe=None, every=1)
    criterion.before(game)
    Simultaneous().step(game, game.players)
    new_x, new_y = position(game).tolist()
    figures = criterion.after(game).figures
    assert figures["gain"] == pytest.approx(new_x * y - x * y, abs=1e-9)
    assert figures["drop"] == pytest.approx(new_x * y - new_x * new_y, abs=1e-9)
    assert figures["balance_gap"] == pytest.approx(figures["gain"] - figures["drop"], abs=1e-9)
    assert position(game).tolist() == [new_x, new_y]  # looking has moved nobody


def test_the_gap_says_who_runs_ahead():
    def reason(x, y):
        game = saddle(x, y, step=0.01)
        criterion = BalanceGap(None, every=1, tolerance=1e-9)
        criterion.before(game)
        Simultaneous().step(game, game.players)
        return criterion.after(game).reason

    assert reason(5.0, 0.6) == "x runs ahead of y"  # far from its best response, it has much to gain
    assert reason(0.8, 5.0) == "y runs ahead of x"


def test_a_match_stops_when_the_saddle_is_reached():
    game = saddle(3.0, -2.0, step=0.1)
    criterion = BalanceGap(None, every=5, tolerance=1e-12, window=4)
    match = Match(game, Alternating(), rounds=10_000, criterion=criterion, stop_when_stationary=True)
    match.play()
    assert match.over
    assert match.round < 10_000
    assert match.verdict.stationary
    torch.testing.assert_close(position(game), torch.tensor([0.8, 0.6], dtype=torch.float64), atol=1e-5, rtol=0)


def test_stationary_only_after_a_whole_window_within_the_tolerance():
    game = saddle(0.8, 0.6, step=0.1)
    criterion = BalanceGap(None, every=1, tolerance=1e-6, window=3)
    verdicts = []
    for _ in range(3):
        criterion.before(game)
        Simultaneous().step(game, game.players)
        verdicts.append(criterion.after(game).stationary)
    assert verdicts == [False, False, True]


def test_a_state_takes_the_place_of_what_was_read_before():
    criterion = BalanceGap(None, window=3)
    criterion.load_state_dict({"gaps": [1.0, 2.0], "means": [1.0, 1.5]})
    criterion.load_state_dict({"gaps": [5.0], "means": [5.0]})
    assert criterion.state_dict() == {"gaps": [5.0], "means": [5.0]}


def test_bad_settings_are_refused():
    for bad in ({"every": 0}, {"window": 0}, {"tolerance": -1.0}):
        with pytest.raises(ValueError, match="at least"):
            BalanceGap(None, **bad)
