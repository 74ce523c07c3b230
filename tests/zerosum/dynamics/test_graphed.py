"""Rounds as CUDA graphs: the same rounds, where that can be, and else the rounds as they are."""

import copy
import random
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum import (
    Accumulate,
    Alternating,
    ConsensusOptimization,
    During,
    Extragradient,
    Game,
    Graphed,
    Lookahead,
    Match,
    Optimistic,
    Player,
    Simultaneous,
    Watcher,
    clip_norm,
)
from zerosum.dynamics import graphed

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
BOTH = ("critic", "generator")


def gan(device="cuda", fused=True, **options):
    """Both kinds of state that a round has beside parameters: running statistics and an optimizer's; and chance."""
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)
    generator.to(device)
    adam = Adam(generator.parameters(), 1e-2, fused=fused)
    groups = [{"params": critic[0].parameters(), "lr": 0.02}, {"params": critic[2].parameters()}]
    sgd = SGD(groups, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, fused=fused)
    target = torch.tensor([1.0, -1.0], device=device)
    return Game(
        (
            Player("critic", critic, sgd, "maximize", schedule=CosineAnnealingLR(sgd, 20), transform=clip_norm(1.0)),
            Player("generator", generator, adam, "minimize", schedule=CosineAnnealingLR(adam, 20), **options),
        ),
        play=lambda z: (critic(target + 0.1 * z[:, :2]), critic(generator(z))),
        payoff=lambda play: play[0].mean() - play[1].mean() - 0.1 * play[0].square().mean(),
        sample=lambda: torch.randn(32, 3, device=device),
    )


def state_of(game):
    tensors = [tensor for player in game.players for tensor in player.module.state_dict().values()]
    return torch.cat([tensor.double().flatten() for tensor in tensors]).cpu()


def played(rule, rounds=12, device="cuda", **options):
    game = gan(device, **options)
    torch.manual_seed(1)
    payoffs = Payoffs()
    Match(game, rule, rounds, watchers=[payoffs]).play()
    return game, payoffs.found


class Payoffs(Watcher):
    def __init__(self):
        self.found = []

    def on_round(self, match, record):
        self.found.append(record.result.stake)


def test_rounds_off_a_cuda_device_are_played_as_they_are():
    plain, payoffs = played(Simultaneous(), device="cpu")
    rule = Graphed(Simultaneous())
    found, same = played(rule, device="cpu")
    assert payoffs == same
    assert torch.equal(state_of(plain), state_of(found))
    assert rule.reasons == {BOTH: "they are not on a CUDA device"}


def test_a_checkpoint_is_that_of_the_rule_within():
    def half_way():
        rule = Lookahead(Simultaneous(), k=3)
        played(rule, rounds=4, device="cpu")
        return rule

    remembered = half_way().state_dict()
    rule = Graphed(Lookahead(Simultaneous(), k=3))
    rule.load_state_dict(remembered)
    assert rule.state_dict()["rounds"] == remembered["rounds"] == 4


RULES = {
    "simultaneous": Simultaneous,
    "alternating": lambda: Alternating(2, 1),
    "extragradient": Extragradient,
    "consensus": lambda: ConsensusOptimization(0.01),
}


@on_cuda
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [{}, {"sits_out": range(4)}])
def test_recorded_rounds_are_the_same(name, options):
    plain, payoffs = played(RULES[name](), **options)
    drawn = torch.cuda.get_rng_state()
    rule = Graphed(RULES[name]())
    found, same = played(rule, **options)
    assert rule.reasons == {}
    assert BOTH in rule._recordings
    assert same == pytest.approx(payoffs, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(state_of(found), state_of(plain), rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.cuda.get_rng_state(), drawn)
    assert [player.steps for player in found.players] == [player.steps for player in plain.players]
    assert [player.step_size for player in found.players] == [player.step_size for player in plain.players]
    assert found.maximizer.steepest.item() == pytest.approx(plain.maximizer.steepest.item(), rel=1e-3)


@on_cuda
def test_a_match_that_goes_on_is_the_same_to_the_bit():
    """Rounds are played as they are at first, and recorded again after a resumption: no trace of either is left."""
    rule = Graphed(Simultaneous())
    whole, _ = played(rule)
    game = gan()
    torch.manual_seed(1)
    first = Match(game, Graphed(Simultaneous()), 12, watchers=[Stop()])
    first.play()
    kept = copy.deepcopy(first.state_dict())
    second = Match(gan(), Graphed(Simultaneous()), 12)
    second.load_state_dict(kept)
    second.play()
    assert torch.equal(state_of(second.game), state_of(whole))


class Stop(Watcher):
    def on_round(self, match, record):
        if record.round == 7:
            match.stop()


class Pretended:
    """In place of a graph, where there is no device: it computes nothing."""

    def replay(self): ...


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=on_cuda)])
def device(request, monkeypatch):
    """On CUDA, or off it with everything about a recording but the recording."""
    if request.param == "cuda":
        return "cuda"
    monkeypatch.setattr(graphed, "_reason_against", lambda inner, movers: None)
    monkeypatch.setattr(graphed, "_watching_the_host", lambda found: nullcontext())
    monkeypatch.setattr(graphed, "_left_as_it_was", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Pretended)
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **options: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    return "cpu"


def test_a_round_is_recorded_once(device, monkeypatch):
    counted = []
    made = graphed._Recording
    monkeypatch.setattr(graphed, "_Recording", lambda *args: counted.append(1) or made(*args))
    played(Graphed(Simultaneous()), device=device, sits_out=range(5))
    assert len(counted) == 2  # of the one who moves alone at first, and of both


def test_what_was_recorded_is_dropped_where_something_else_moved(device):
    game, rule = gan(device), Graphed(Simultaneous())

    def play(rounds=1):
        for _ in range(rounds):
            rule.step(game, game.players)
        return rule._recordings.get(BOTH)

    recording = play(3)
    assert recording is not None
    assert play() is recording
    changes = [
        lambda: setattr(game.maximizer, "step_scale", 0.5),
        lambda: [optimizer.state.clear() for optimizer in game.minimizer.optimizers],
        lambda: game.minimizer.module.train(not game.minimizer.module.training),
        lambda: game.minimizer.module[1].register_buffer("running_mean", torch.ones(8, device=device)),
        lambda: game.maximizer.optimizer.load_state_dict(game.maximizer.optimizer.state_dict()),
        lambda: game.maximizer.optimizer.param_groups[0].update(momentum=0.5),
        lambda: rule.load_state_dict({}),
        lambda: rule.on_entry(game.minimizer),
        lambda: setattr(game, "round", game.round + 2),
    ]
    for change in changes:
        change()
        assert play() is None
        newer = play(2)
        assert newer is not None
        assert newer is not recording
        assert play() is newer
        recording = newer


def test_another_game_of_players_by_the_same_names_is_another(device):
    rule = Graphed(Simultaneous())
    one, other = gan(device), gan(device)
    for game in (one, other):
        for _ in range(4):
            rule.step(game, game.players)
    assert [player.steps for player in other.players] == [4, 4]


def test_step_sizes_are_read_anew_each_time(device):
    game, rule = gan(device), Graphed(Simultaneous())
    for size in (0.1, 0.2, 0.3, 0.4, 0.5):
        game.maximizer.optimizer.param_groups[0]["lr"] = size
        rule.step(game, game.players)
    assert rule._recordings[BOTH]._sizes._tensor.tolist() == pytest.approx([0.5, 0.05, 0.01])
    assert [group["lr"] for group in game.maximizer.optimizer.param_groups] == [0.5, 0.05]
    assert not any(group["capturable"] for group in game.minimizer.optimizer.param_groups)


@on_cuda
def test_rounds_of_another_rule_in_between():
    answers = frozenset({2, 3, 7})
    plain, _ = played(During(answers, Alternating(), Simultaneous()))
    found, _ = played(During(answers, Alternating(), Graphed(Simultaneous())))
    torch.testing.assert_close(state_of(found), state_of(plain), rtol=1e-4, atol=1e-5)


@on_cuda
@pytest.mark.parametrize(
    ("why", "rule", "options"),
    [
        ("Optimistic has a memory", Optimistic, dict),
        ("the transform of 'generator' has a memory", Simultaneous, lambda: {"transform": Accumulate(2)}),
        ("an optimizer of 'critic' is not fused", Simultaneous, lambda: {"fused": False}),
    ],
)
def test_what_cannot_be_recorded_is_played_as_it_is(why, rule, options):
    plain, _ = played(rule(), **options())
    tried = Graphed(rule())
    found, _ = played(tried, **options())
    assert tried.reasons == {BOTH: why}
    torch.testing.assert_close(state_of(found), state_of(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["sample", "play", "payoff"])
def test_a_round_that_asks_which_it_is_is_played_as_it_is(part, device):
    game, rule = gan(device), Graphed(Simultaneous())
    asked, given = [], getattr(game, part)
    setattr(game, part, lambda *args: asked.append(game.round) or given(*args))
    Match(game, rule, 6).play()
    assert asked == [0, 1, 2, 3, 4, 5]
    assert rule.reasons == {BOTH: "it goes by the number of the round"}


@on_cuda
@pytest.mark.parametrize(
    ("why", "disturb"),
    [
        ("a round waits for the device", lambda z: z.sum().item()),
        ("a round waits for the device", lambda z: z[z > 0]),
        ("a round draws random numbers on the host", lambda z: torch.rand(())),
        ("a round draws random numbers on the host", lambda z: random.random()),
    ],
)
def test_rounds_that_need_the_host_are_played_as_they_are(why, disturb):
    game, rule = gan(), Graphed(Simultaneous())
    play = game.play
    game.play = lambda z: (disturb(z), play(z))[1]
    Match(game, rule, 6).play()
    assert rule.reasons == {BOTH: why}


@on_cuda
def test_a_round_that_cannot_be_recorded_after_all_leaves_the_match_whole():
    game, rule = gan(), Graphed(Simultaneous())
    play = game.play
    game.play = lambda z: (torch.cuda.synchronize(), play(z))[1]
    Match(game, rule, 8).play()
    assert list(rule.reasons) == [BOTH]
    assert game.maximizer.steps == 8
    assert torch.randn(4, device="cuda").isfinite().all()
