import io
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.zerosum.games import bilinear, position
from zerosum import (
    BalanceGap,
    BestResponse,
    Criterion,
    DualityGap,
    Game,
    GradientNorm,
    Match,
    Player,
    Simultaneous,
    Verdict,
    Watcher,
)


class Diary(Watcher):
    def __init__(self):
        self.entries = []

    def on_start(self, match):
        self.entries.append(("start", match.round))

    def on_round(self, match, record):
        self.entries.append((record.round, record.measured))

    def on_end(self, match):
        self.entries.append(("end", match.round))


def test_rounds_are_told_to_those_who_watch():
    diary = Diary()
    Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=3, watchers=[diary]).play()
    assert diary.entries == [("start", 0), (1, None), (2, None), (3, None), ("end", 3)]


def test_who_sits_out_stays_and_is_called_in():
    game = bilinear(1.0, 1.0, 0.5)
    called = []
    match = Match(game, Simultaneous(), rounds=4, measure=lambda: {"y": position(game)[1].item()}, measure_every=100)
    game.minimizer.sits_out = range(2)
    game.minimizer.on_entry = lambda: called.append(match.round)
    match.play()
    assert called == [2]
    assert match.measured[:2] == [(0, {"y": 1.0}), (2, {"y": 1.0})]  # before the match, and when y comes in
    assert match.measured[-1][0] == 4
    assert position(game)[0].item() > 2.0  # x moved from the start


def test_a_criterion_judges_only_rounds_that_both_play():
    game = bilinear(1.0, 1.0, 0.1)
    game.minimizer.sits_out = range(4)
    match = Match(game, Simultaneous(), rounds=4, criterion=BalanceGap(None, every=1))
    match.play()
    assert match.verdict is None
    match.rounds = 5
    match.play()
    assert match.verdict is not None


def test_averages_are_taken_each_round_before_the_criterion_looks():
    """y = 1, 0.9, 0.8 where x stays at 1: their mean over the rounds played, uniform and exponential."""
    for average, expected in ((None, [0.9, 0.85, 0.8]), (get_ema_multi_avg_fn(0.5), [0.9, 0.85, 0.775])):
        game = bilinear(1.0, 1.0, 0.1)
        game.maximizer.optimizer.param_groups[0]["lr"] = 0.0
        game.minimizer.average = AveragedModel(game.minimizer.module, multi_avg_fn=average)
        found = []

        class Reader(Criterion):
            def after(self, game, found=found):
                found.append(game.minimizer.average.module.value.item())
                return Verdict({}, False, "")

        Match(game, Simultaneous(), rounds=3, criterion=Reader()).play()
        assert found == pytest.approx(expected)


def test_schedules_step_once_a_round_that_the_player_moves_in():
    game = bilinear(1.0, 1.0, 1.0)
    game.minimizer.schedule = StepLR(game.minimizer.optimizer, step_size=1, gamma=0.5)
    game.minimizer.sits_out = range(2)
    Match(game, Simultaneous(), rounds=5).play()
    assert game.minimizer.optimizer.param_groups[0]["lr"] == 0.5**3


def test_a_stopped_match_finishes_its_round_and_ends():
    match = Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=10)

    class Stopper(Watcher):
        def on_round(self, match, record):
            if record.round == 3:
                match.stop()

    match.watchers = [Stopper(), diary := Diary()]
    match.play()
    assert match.round == 3
    assert not match.over
    assert diary.entries[-1] == ("end", 3)


def test_a_stopped_match_plays_on_when_it_is_told_to():
    match = Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=10)

    class Stopper(Watcher):
        def on_round(self, match, record):
            if record.round in (3, 4):
                match.stop()

    match.watchers = [Stopper()]
    found = []
    for _ in range(3):
        match.play()
        found.append(match.round)
    assert found == [3, 4, 10]


def test_watchers_of_one_class_have_a_memory_each():
    class Counter(Watcher):
        def __init__(self, step):
            self.step, self.count = step, 0

        def on_round(self, match, record):
            self.count += self.step

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state.get("count", 0)

    def match(*steps):
        return Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=3, watchers=[Counter(step) for step in steps])

    played, taken_up = match(1, 10), match(1, 10, 100)
    played.play()
    taken_up.load_state_dict(played.state_dict())
    assert [watcher.count for watcher in taken_up.watchers] == [3, 30, 0]


def test_what_looks_at_a_game_leaves_its_random_numbers_alone():
    """A play with dropout, and a criterion and a measurement that draw from every generator that there is."""

    def played(**looking):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        network, rest = nn.Sequential(nn.Linear(8, 8), nn.Dropout()), nn.Linear(8, 1)
        game = Game(
            (
                Player("network", network, SGD(network.parameters(), 0.1), "maximize"),
                Player("rest", rest, SGD(rest.parameters(), 0.1), "minimize"),
            ),
            play=lambda z: rest(network(z)),
            payoff=lambda play: play.square().mean() * (1 + random.random() + np.random.rand()),
            sample=lambda: torch.randn(4, 8),
        )
        Match(game, Simultaneous(), rounds=5, **looking).play()
        return network[0].weight

    expected = played()
    probe = torch.ones(4, 8)
    for criterion in (BalanceGap(probe, every=1), GradientNorm(probe), DualityGap(BestResponse(2), probe, every=1)):
        assert torch.equal(played(criterion=criterion), expected)
    drawing = lambda: {"one": torch.rand(()).item() + random.random() + np.random.rand()}  # noqa: E731
    assert torch.equal(played(measure=drawing, measure_every=1), expected)


def test_an_error_in_a_round_is_told_apart_from_an_end():
    game = bilinear(1.0, 1.0, 0.1)
    match = Match(game, Simultaneous(), rounds=3)
    match.play()
    assert not match.broken
    game.payoff = lambda play: 1 / 0
    match.rounds = 5
    with pytest.raises(ZeroDivisionError):
        match.play()
    assert match.broken


def noisy_match(rounds):
    """A game with all that a state has to hold: BatchNorm, momentum, a schedule, chance, a criterion, measurements."""
    torch.manual_seed(5)
    one, two = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 3)
    adam, sgd = Adam(one.parameters(), 0.01), SGD(two.parameters(), 0.01, momentum=0.9)
    game = Game(
        (
            Player("one", one, adam, "maximize", average=AveragedModel(one)),
            Player("two", two, sgd, "minimize", schedule=StepLR(sgd, 5), sits_out=range(3)),
        ),
        play=lambda latents: two(one(latents)),
        payoff=lambda play: play.square().mean() - play.mean(),
        sample=lambda: torch.randn(4, 3),
    )
    criterion = BalanceGap(torch.randn(4, 3), every=2)
    match = Match(
        game, Simultaneous(), rounds, criterion, measure=lambda: {"w": two.weight[0, 0].item()}, measure_every=4
    )
    return match, one, two, game.maximizer.average


def test_a_match_taken_up_from_its_state_is_the_one_that_never_stopped():
    whole, *expected = noisy_match(20)
    whole.play()

    first, *_ = noisy_match(9)
    first.play()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)

    second, *found = noisy_match(20)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.play()
    for a, b in zip(expected, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert second.verdict == whole.verdict
    assert [m for m in second.measured if m[0] != 9] == whole.measured  # the first was measured at its own end too


def test_settings_that_make_no_sense_are_refused():
    game = bilinear(1.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="not -1"):
        Match(game, Simultaneous(), rounds=-1)
    with pytest.raises(ValueError, match="needs a criterion"):
        Match(game, Simultaneous(), rounds=1, stop_when_stationary=True)
    with pytest.raises(ValueError, match="measure every"):
        Match(game, Simultaneous(), rounds=1, measure_every=0)
