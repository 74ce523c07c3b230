"""Play that a guide balances: who moves when, by a script and by the Balance Gap, and what is remembered."""

from types import SimpleNamespace

import pytest
import torch
from torch.optim import SGD

from tests.matches import broken_off
from tests.zerosum.games import Quadratic, bilinear, position, scalar_game
from zerosum import Alternating, Balanced, BalanceGap, Lookahead, Match, Simultaneous, Watcher


class Script:
    """A guide that is asked every so many rounds, and has made up its mind beforehand."""

    def __init__(self, every, *words):
        self.every, self.words, self.game, self.interrupted = every, words, None, []

    @property
    def lagging(self):
        return self.words[self.game.round // self.every]

    def interrupt(self):
        self.interrupted.append(self.game.round)


class Movers(Watcher):
    """Who moved, a letter a player: the games' players are x and y."""

    def __init__(self):
        self.found = []

    def on_round(self, match, record):
        assert list(record.step_sizes) == list(record.result.losses)
        self.found.append("".join(record.result.losses))


def test_who_lags_moves_alone_but_when_the_guide_is_asked():
    guide = Script(4, None, "minimize", "maximize", None)
    game = guide.game = bilinear(1.0, 1.0, 0.1)
    movers = Movers()
    Match(game, Balanced(guide), 14, watchers=[movers]).play()
    assert movers.found == ["xy"] * 4 + ["xy", "y", "y", "y"] + ["xy", "x", "x", "x"] + ["xy"] * 2
    assert guide.interrupted == [5, 6, 7, 9, 10, 11]


def test_a_round_alone_is_one_in_which_the_other_sits_out():
    guide = Script(2, "minimize", "maximize")
    game, other = bilinear(1.0, 2.0, 0.1), bilinear(1.0, 2.0, 0.1)
    guide.game = game
    other.minimizer.sits_out, other.maximizer.sits_out = (3,), (1,)
    Match(game, Balanced(guide), 4).play()
    Match(other, Simultaneous(), 4).play()
    assert torch.equal(position(game), position(other))


def test_who_sits_out_is_given_no_round():
    guide = Script(3, "minimize", "minimize")
    game = guide.game = bilinear(1.0, 1.0, 0.1)
    game.minimizer.sits_out = range(5)
    movers = Movers()
    Match(game, Balanced(guide), 6, watchers=[movers]).play()
    assert movers.found == ["x"] * 5 + ["y"]
    assert guide.interrupted == [5]


def test_a_schedule_counts_its_players_own_steps():
    guide = Script(3, "minimize", "minimize")
    game = guide.game = bilinear(1.0, 1.0, 0.1)
    for player in game.players:
        player.schedule = torch.optim.lr_scheduler.StepLR(player.optimizer, 1, gamma=0.5)
    Match(game, Balanced(guide), 6).play()
    assert [player.step_size for player in game.players] == pytest.approx([0.1 / 4, 0.1 / 64])


def test_the_gap_gives_rounds_away_and_reads_where_both_move():
    """The payoff is x - y: 3/10 a round for x, 1/10 for y. Its stretches: one round, then of four both, four given
    away, one round that begins anew, four of both, and so on; the gap of four is 8/10, whoever had moved before."""
    game = scalar_game(lambda a, b: a - b, 0.0, 0.0, 0.1)
    game.maximizer.optimizer.param_groups[0]["lr"] = 0.3
    guide = BalanceGap(every=4, tolerance=0.5, window=1)
    movers, gaps = Movers(), []

    class Gaps(Watcher):
        def on_round(self, match, record):
            if record.verdict is not None:
                gaps.append(record.verdict.figures["balance_gap"])

    Match(game, Balanced(guide), 22, guide, watchers=[movers, Gaps()]).play()
    assert movers.found == ["xy"] * 5 + (["y"] * 3 + ["xy"] * 5) * 2 + ["y"]
    assert gaps == pytest.approx([0.2, 0.8, 0.2, 0.8, 0.2, 0.8])


@pytest.mark.parametrize("slow", ["x", "y"])
def test_rounds_go_to_the_slower_player_and_play_comes_to_the_saddle(slow):
    """-x²/2 + xy/10 + y²/2, both far off at first; what the slow one wins in a stretch is within the tolerance."""
    game = scalar_game(lambda a, b: -a * a / 2 + 0.1 * a * b + b * b / 2, 10.0, 10.0, 0.05)
    {player.name: player for player in game.players}[slow].optimizer.param_groups[0]["lr"] = 0.005
    guide = BalanceGap(every=20, tolerance=12.0, window=1)
    movers = Movers()
    Match(game, Balanced(guide), 4000, guide, watchers=[movers]).play()
    fast = {"x": "y", "y": "x"}[slow]
    assert movers.found.count(slow) >= 19
    assert movers.found.count(fast) == 0
    torch.testing.assert_close(position(game), torch.zeros(2, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_strong_saddles_are_found_whatever_the_speeds(seed):
    quadratic = Quadratic(seed, 4, 3, condition=3, coupling=0.5)
    game = quadratic.game(0.2)
    game.players[seed % 2].optimizer.param_groups[0]["lr"] = 0.02
    guide = BalanceGap(every=10, tolerance=1e-3, window=2)
    movers = Movers()
    Match(game, Balanced(guide), 4000, guide, watchers=[movers]).play()
    assert {"x", "y"} & set(movers.found)
    torch.testing.assert_close(position(game), quadratic.saddle, atol=1e-6, rtol=0)


@pytest.mark.parametrize("inner", [None, Alternating(), Lookahead(Simultaneous(), k=3)])
@pytest.mark.parametrize("stop", [1, 5, 7, 9, 14])
def test_it_goes_on_to_the_bit(inner, stop):
    def match():
        game = scalar_game(lambda a, b: a * b / 10 + a - b, 0.3, 0.7, 0.1, lambda p, lr: SGD(p, lr, momentum=0.9))
        game.maximizer.optimizer.param_groups[0]["lr"] = 0.3
        guide = BalanceGap(every=4, tolerance=0.5, window=2)
        rule = Lookahead(Simultaneous(), k=3) if isinstance(inner, Lookahead) else inner
        return Match(game, Balanced(guide, rule), 24, guide, watchers=[Movers()])

    whole, first, second = broken_off(match, stop)
    assert torch.equal(position(whole.game), position(second.game))
    assert whole.verdict == second.verdict
    assert first.watchers[0].found + second.watchers[0].found == whole.watchers[0].found
    assert "y" in whole.watchers[0].found


def test_the_rule_that_it_wraps_is_told_who_comes_in():
    entered = []
    inner = SimpleNamespace(on_entry=entered.append)
    game = bilinear(1.0, 1.0, 0.1)
    Balanced(Script(1), inner).on_entry(game.minimizer)
    assert entered == [game.minimizer]
