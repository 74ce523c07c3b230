import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.matches import broken_off
from tests.zerosum.games import bilinear, position, saddle, scalar_game
from zerosum import Alternating, BalanceGap, Match, Simultaneous, Watcher

coordinates = st.floats(-10, 10)


def readings(game, rounds, criterion):
    """(rounds played, figures, reason) of each, of a match that the criterion does not stop."""
    found = []

    class Reader(Watcher):
        def on_round(self, match, record):
            if record.verdict is not None:
                found.append((record.round, record.verdict.figures, record.verdict.reason))

    Match(game, Simultaneous(), rounds, criterion, watchers=[Reader()]).play()
    return found


@given(coordinates, coordinates, st.floats(1e-3, 1.0))
def test_gain_drop_and_gap_are_what_their_definitions_say(x, y, step):
    game = bilinear(x, y, step)
    criterion = BalanceGap(every=1)
    criterion.before(game)
    Simultaneous().step(game, game.players)
    new_x, new_y = position(game).tolist()
    figures = criterion.after(game).figures
    assert figures["gain"] == pytest.approx(new_x * y - x * y, abs=1e-9)
    assert figures["drop"] == pytest.approx(new_x * y - new_x * new_y, abs=1e-9)
    assert figures["balance_gap"] == pytest.approx(figures["gain"] - figures["drop"], abs=1e-9)
    assert position(game).tolist() == [new_x, new_y]  # looking has moved nobody


def test_a_reading_is_of_all_rounds_since_the_last():
    """x·y from (1, 1) by halves: (3/2, 1/2), (7/4, -1/4), (13/8, -9/8)."""
    (first, one, _), (second, two, _) = readings(bilinear(1.0, 1.0, 0.5), 4, BalanceGap(every=2, window=2))
    assert (first, second) == (1, 3)
    assert one == {"gain": 0.5, "drop": 0.75, "balance_gap": -0.25, "balance_gap_mean": 0.0}  # one round: in no mean
    gain, drop = 13 / 8 * 1 / 2 - 3 / 4, 13 / 8 * (1 / 2 + 9 / 8)
    assert two == {"gain": gain, "drop": drop, "balance_gap": gain - drop, "balance_gap_mean": (gain - drop) / 2}
    assert two["balance_gap"] == 13 / 8 * -9 / 8 - 3 / 4  # how the payoff has changed


def test_the_mean_is_of_the_last_gaps_and_of_zeros_for_those_to_come():
    """The payoff is x, which grows by 1/4 a round: 1/2 a stretch."""
    game = scalar_game(lambda a, b: a + 0 * b, 0.0, 0.0, 0.25)
    found = readings(game, 10, BalanceGap(every=2, window=3, tolerance=0.4))
    assert [figures["balance_gap_mean"] for _, figures, _ in found] == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2, 1 / 2])
    assert [reason for *_, reason in found] == ["balanced, not yet for long"] * 3 + ["x runs ahead of y"] * 2


def test_a_reading_plays_each_probe_twice_and_the_first_of_a_stretch_once_more():
    game = scalar_game(lambda a, b: a * b, 1.0, 1.0, 0.1)
    played, play = [], game.play
    game.play = lambda drawn: (played.append(drawn), play(drawn))[1]
    readings(game, 6, BalanceGap("one", "two", every=2))
    read = [drawn for drawn in played if drawn is not None]  # the game itself draws None
    assert read == ["one", "two"] * (3 + 2 + 2)


def test_the_payoff_is_the_mean_over_the_probes():
    """s·x·y, for s = 1, 2 and 6: as x·y three times."""
    game = bilinear(1.0, 1.0, 0.5)
    game.play = lambda s: (game.maximizer.module.value * (1 if s is None else s), game.minimizer.module.value)
    ((_, figures, _),) = readings(game, 1, BalanceGap(1, 2, 6, every=1))
    assert (figures["gain"], figures["drop"]) == (1.5, 2.25)


def test_a_stretch_begins_anew_where_one_sat_out():
    """y sits out rounds 3 and 4, counted from 0: of rounds 0, 2, 6 and 8, which are judged, 6 is alone again."""
    game = bilinear(1.0, 1.0, 0.5)
    game.minimizer.sits_out = range(3, 5)
    path = [position(game).tolist()]

    class Path(Watcher):
        def on_round(self, match, record):
            path.append(position(game).tolist())

    criterion, found = BalanceGap(every=2, window=2), []

    class Reader(Watcher):
        def on_round(self, match, record):
            if record.verdict is not None:
                found.append((record.round, record.verdict.figures))

    Match(game, Simultaneous(), 9, criterion, watchers=[Path(), Reader()]).play()
    payoffs = [x * y for x, y in path]
    assert [round for round, _ in found] == [1, 3, 7, 9]
    spans = [(0, 1), (1, 3), (6, 7), (7, 9)]
    gaps = [payoffs[end] - payoffs[start] for start, end in spans]
    assert [figures["balance_gap"] for _, figures in found] == pytest.approx(gaps)
    assert [figures["balance_gap_mean"] for _, figures in found] == pytest.approx([0, gaps[1] / 2, 0, gaps[3] / 2])


def test_the_gap_says_who_runs_ahead_and_who_lags():
    def read(x, y, tolerance=1e-9):
        game = saddle(x, y, step=0.01)
        criterion = BalanceGap(every=1, tolerance=tolerance, window=1)
        criterion.before(game)
        Simultaneous().step(game, game.players)
        return criterion.after(game).reason, criterion.lagging

    assert read(5.0, 0.6) == ("x runs ahead of y", "minimize")  # far from its best response, it has much to gain
    assert read(0.8, 5.0) == ("y runs ahead of x", "maximize")
    assert read(0.8, 5.0, tolerance=100) == ("stationary: mean gap within 100 of zero for 1 readings", None)
    assert BalanceGap().lagging is None


def test_who_interrupts_has_the_next_reading_begin_anew():
    game = bilinear(1.0, 1.0, 0.5)
    criterion = BalanceGap(every=1, window=1)
    criterion.before(game)
    Simultaneous().step(game, game.players)
    criterion.after(game)
    game.round = 1
    criterion.interrupt()
    game.minimizer.place([torch.tensor([7.0])])  # moved alone
    criterion.before(game)
    assert criterion.mean == 0  # what was read before is of another stretch
    assert criterion.after(game).figures["balance_gap"] == 0


def test_a_match_stops_when_the_saddle_is_reached():
    game = saddle(3.0, -2.0, step=0.1)
    criterion = BalanceGap(every=5, tolerance=1e-12, window=4)
    match = Match(game, Alternating(), rounds=10_000, criterion=criterion, stop_when_stationary=True)
    match.play()
    assert match.over
    assert match.round < 10_000
    assert match.verdict.stationary
    torch.testing.assert_close(position(game), torch.tensor([0.8, 0.6], dtype=torch.float64), atol=1e-5, rtol=0)


def drifting(a_round):
    """The payoff grows so much in each round, and y has nothing to set against it."""
    return scalar_game(lambda a, b: a + 0 * b, 0.0, 0.0, a_round)


@pytest.mark.parametrize(("a_stretch", "stops"), [(0.0, True), (0.019, True), (0.021, False), (0.05, False)])
def test_a_slow_drift_is_no_equilibrium(a_stretch, stops):
    """0.0005 a round is nothing beside the 0.08 that a reading of a single round scatters by."""
    criterion = BalanceGap(every=100, tolerance=0.02, window=5)
    match = Match(drifting(a_stretch / 100), Simultaneous(), 2000, criterion, stop_when_stationary=True)
    match.play()
    assert match.verdict.stationary == stops
    assert match.round == (501 if stops else 2000)  # as soon as there are five stretches
    assert stops or match.verdict.reason == "x runs ahead of y"


@pytest.mark.parametrize("seed", range(3))
def test_an_equilibrium_with_noise_is_one_and_the_way_there_is_not(seed):
    """Gradients with noise of 0.05 leave the players within 0.01 or so of the saddle, and the payoff of its value."""
    torch.manual_seed(seed)

    def stopped_at(x, step):
        game = saddle(x, 0.6, step)
        game.sample = lambda: 0.05 * torch.randn(2, dtype=torch.float64)
        one, two = (player.module for player in game.players)
        game.play = lambda noise: (one.value, two.value, noise)
        clean = game.payoff
        game.payoff = lambda play: clean((play[0], play[1])) + play[0].sum() * play[2][0] + play[1].sum() * play[2][1]
        criterion = BalanceGap(torch.zeros(2, dtype=torch.float64), every=100, tolerance=0.02, window=5)
        match = Match(game, Simultaneous(), 4000, criterion, stop_when_stationary=True)
        match.play()
        return match.round, abs(one.value.item() - 0.8)

    assert stopped_at(0.8, 0.01)[0] == 501
    round, distance = stopped_at(40.0, 0.001)
    assert round > 1000  # x has a way to go, and goes it
    assert distance < 0.5


def test_stationary_only_after_a_whole_window_within_the_tolerance():
    game = saddle(0.8, 0.6, step=0.1)
    criterion = BalanceGap(every=1, tolerance=1e-6, window=3)
    verdicts = []
    for game.round in range(3):
        criterion.before(game)
        Simultaneous().step(game, game.players)
        verdicts.append(criterion.after(game).stationary)
    assert verdicts == [False, False, True]


def test_a_state_takes_the_place_of_what_was_read_before():
    criterion = BalanceGap(window=3)
    criterion.load_state_dict({"gaps": [1.0, 2.0], "held": 1, "start": None})
    criterion.load_state_dict({"gaps": [6.0], "held": 0, "start": (4, 0.5, [torch.ones(1)])})
    assert criterion.state_dict() == {"gaps": [6.0], "held": 0, "start": (4, 0.5, [torch.ones(1)])}
    assert (criterion.mean, criterion.lagging) == (2.0, "minimize")


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_stretch_goes_on_where_a_match_was_broken_off(stop):
    def match():
        return Match(bilinear(1.0, 1.0, 0.5), Simultaneous(), 9, BalanceGap(every=3, window=2))

    whole, _, second = broken_off(match, stop)
    assert second.verdict == whole.verdict


def test_a_game_without_a_payoff_has_no_gap():
    game = bilinear(1.0, 1.0, 0.5)
    game.payoff = None
    with pytest.raises(ValueError, match="this game has none"):
        BalanceGap().before(game)


def test_bad_settings_are_refused():
    for bad in ({"every": 0}, {"window": 0}, {"tolerance": -1.0}):
        with pytest.raises(ValueError, match="at least"):
            BalanceGap(**bad)
