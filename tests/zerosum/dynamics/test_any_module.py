"""Every rule with what PyTorch's users bring: optimizers with a state, parameter groups, frozen parameters, BatchNorm,
projections, a state to save."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from tests.zerosum.games import position, scalar_game
from zerosum import DYNAMICS, Alternating, DynamicsName, Extragradient, Game, Match, Optimistic, Player, Simultaneous

OPTIMIZERS = {
    "momentum": lambda groups: SGD(groups, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda groups: Adam(groups, 0.02, betas=(0.5, 0.9)),
    "AdamW": lambda groups: AdamW(groups, 0.02),
    "RMSprop": lambda groups: RMSprop(groups, 0.005),
}


def test_names_and_classes_are_the_same_seven():
    assert set(DYNAMICS) == set(DynamicsName.__args__)
    assert len({type(make()) for make in DYNAMICS.values()}) == len(DYNAMICS) == 7


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.never_used = nn.Linear(2, 2)
        self.last.bias.requires_grad_(False)

    def forward(self, z):
        return self.last(torch.tanh(self.norm(self.first(z))))


def gan(optimizer, **generator_options):
    """A Wasserstein GAN with a penalty: BatchNorm on both sides, parameter groups, a frozen and an unused parameter."""
    torch.manual_seed(3)
    generator, critic = Generator(), nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
    groups = [{"params": generator.first.parameters(), "lr": 0.005}, {"params": generator.norm.parameters()}]
    groups.append({"params": [*generator.last.parameters(), *generator.never_used.parameters()]})
    target = torch.tensor([1.0, -1.0])

    def size(play):
        return 0.1 * (play[0].square().mean() + play[1].square().mean())

    return Game(
        (
            Player("critic", critic, optimizer(critic.parameters()), "maximize", terms={"size": size}),
            Player("generator", generator, optimizer(groups), "minimize", **generator_options),
        ),
        play=lambda z: (critic(target + 0.1 * z[:, :2]), critic(generator(z))),
        payoff=lambda play: play[0].mean() - play[1].mean(),
        sample=lambda: torch.randn(32, 3),
    )  # fmt: skip


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_optimizer_moves_what_is_to_move_and_nothing_else(name, optimizer):
    game = gan(OPTIMIZERS[optimizer])
    before = copy.deepcopy(game.minimizer.module.state_dict())
    match = Match(game, DYNAMICS[name](), rounds=5)
    match.play()
    after = game.minimizer.module.state_dict()
    unchanged = {key for key in before if torch.equal(before[key], after[key])}
    assert unchanged == {"last.bias", "never_used.weight", "never_used.bias"}
    assert all(p.grad is None and p.isfinite().all() for player in game.players for p in player.module.parameters())
    assert after["norm.num_batches_tracked"] >= 5


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_player_that_sits_out_stays(name):
    game = gan(OPTIMIZERS["Adam"], sits_out=range(3))
    before = game.minimizer.values()
    match = Match(game, DYNAMICS[name](), rounds=3)
    match.play()
    assert all(torch.equal(a, b) for a, b in zip(before, game.minimizer.values(), strict=True))
    match.rounds = 6
    match.play()
    assert not torch.equal(before[0], game.minimizer.values()[0])


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_match_taken_up_from_its_state_is_the_one_that_never_stopped(name):
    def states(match):
        return [tensor for player in match.game.players for tensor in player.module.state_dict().values()]

    whole = Match(gan(OPTIMIZERS["Adam"]), DYNAMICS[name](), rounds=13)
    whole.play()
    first = Match(gan(OPTIMIZERS["Adam"]), DYNAMICS[name](), rounds=7)
    first.play()
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second = Match(gan(OPTIMIZERS["Adam"]), DYNAMICS[name](), rounds=13)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.play()
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(second), strict=True))


def test_an_extrapolation_leaves_no_trace_in_running_statistics():
    def buffers(rule):
        game = gan(OPTIMIZERS["momentum"])
        torch.manual_seed(1)
        rule.step(game, game.players)
        return [buffer for player in game.players for buffer in player.module.buffers()]

    plain = buffers(Simultaneous())
    for rule in (Extragradient(), Extragradient(resample=True)):
        assert all(torch.equal(a, b) for a, b in zip(plain, buffers(rule), strict=True))


@pytest.mark.parametrize("resample", [False, True])
def test_extragradient_draws_one_sample_or_two(resample):
    drawn = []
    game = scalar_game(lambda a, b: a * b, 1.0, 2.0, 0.1)
    game.sample = lambda: drawn.append(float(len(drawn) + 1)) or drawn[-1]
    game.payoff = lambda play: (play[0] * play[1] * play[2]).sum()
    game.play = lambda scale: (game.maximizer.module.value, game.minimizer.module.value, scale)
    Extragradient(resample).step(game, game.players)
    second = 2.0 if resample else 1.0
    assert drawn == [1.0, 2.0][: len(drawn)]
    assert len(drawn) == 1 + resample
    # Ahead: x = 1 + 0.1 · 2, y = 2 - 0.1 · 1; from the start, along the gradient there.
    expected = torch.tensor([1 + 0.1 * second * 1.9, 2 - 0.1 * second * 1.2], dtype=torch.float64)
    torch.testing.assert_close(position(game), expected)


def test_extra_adam_takes_up_both_gradients():
    """Gidel et al., algorithm 4, written out for f = x·y."""
    lr, b1, b2, eps = 0.1, 0.5, 0.9, 1e-8
    game = scalar_game(lambda a, b: a * b, 1.0, 2.0, lr, lambda p, step: Adam(p, step, betas=(b1, b2), eps=eps))
    rule = Extragradient()
    w = torch.tensor([1.0, 2.0], dtype=torch.float64)
    m, v, count = torch.zeros(2), torch.zeros(2), 0
    for _ in range(3):
        point = w
        for _ in range(2):
            g = torch.stack([-point[1], point[0]])
            m, v, count = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2, count + 1
            point = w - lr * (m / (1 - b1**count)) / ((v / (1 - b2**count)).sqrt() + eps)
        w = point
        rule.step(game, game.players)
        torch.testing.assert_close(position(game), w, rtol=1e-9, atol=0)


def test_optimistic_adam_is_the_papers():
    """Daskalakis et al., algorithm 1, written out for f = x·y."""
    lr, b1, b2, eps = 0.1, 0.5, 0.9, 1e-8
    game = scalar_game(lambda a, b: a * b, 1.0, 2.0, lr, lambda p, step: Adam(p, step, betas=(b1, b2), eps=eps))
    rule = Optimistic()
    w = torch.tensor([1.0, 2.0], dtype=torch.float64)
    m, v, before = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    for t in range(1, 5):
        g = torch.stack([-w[1], w[0]])
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        now = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        w, before = w - 2 * lr * now + lr * before, now
        rule.step(game, game.players)
        torch.testing.assert_close(position(game), w, rtol=1e-9, atol=0)


def test_weight_decay_is_part_of_the_field():
    """L2 by the optimizer and by a term of the loss is one game, at every point that a rule looks at."""
    for rule in (Simultaneous, Extragradient, Optimistic, Alternating):
        ends = []
        for decay, terms in ((0.5, {}), (0.0, {"L2": lambda play: 0.25 * play[0].square().sum()})):
            game = scalar_game(
                lambda a, b: a * b, 1.0, 2.0, 0.1, lambda p, step, decay=decay: SGD(p, step, weight_decay=decay),
                terms=terms,
            )  # fmt: skip
            game.minimizer.optimizer = SGD(game.minimizer.parameters(), 0.1)
            Match(game, rule(), rounds=4).play()
            ends.append(position(game))
        torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_projected_player_stays_where_it_may_be(name):
    game = scalar_game(lambda a, b: a * b, 0.5, 1.0, 0.3, projection=lambda value: value.clamp(-0.6, 0.6))
    rule = DYNAMICS[name]()
    for _ in range(20):
        rule.step(game, game.players)
        assert abs(position(game)[0].item()) <= 0.6


def test_projected_extragradient_and_optimistic_by_hand():
    """f = x·y, x in [-1, 1], from (0.9, 1), η = 0.5. F = (-y, x)."""

    def game():
        return scalar_game(lambda a, b: a * b, 0.9, 1.0, 0.5, projection=lambda value: value.clamp(-1, 1))

    one = game()
    Extragradient().step(one, one.players)
    # ahead (1.4 → 1, 0.55); from the start x = 0.9 + 0.5 · 0.55 → 1, y = 1 - 0.5 · 1
    assert position(one).tolist() == pytest.approx([1.0, 0.5])

    two, rule = game(), Optimistic()
    rule.step(two, two.players)
    # Δ = (0.5, -0.45): base (1.4 → 1, 0.55), then (1.5 → 1, 0.1)
    assert position(two).tolist() == pytest.approx([1.0, 0.1])
    rule.step(two, two.players)
    # Δ = (0.05, -0.5), from the base (1, 0.55): base (1, 0.05), then (1, -0.45)
    assert position(two).tolist() == pytest.approx([1.0, -0.45])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", DYNAMICS)
def test_every_rule_plays_on_cuda(name):
    game = gan(OPTIMIZERS["Adam"])
    for player in game.players:
        player.module.to("cuda")
    target, generator, critic = torch.tensor([1.0, -1.0], device="cuda"), game.minimizer.module, game.maximizer.module
    game.play = lambda z: (critic(target + 0.1 * z[:, :2]), critic(generator(z)))
    game.sample = lambda: torch.randn(32, 3, device="cuda")
    before = game.minimizer.values()[0]
    Match(game, DYNAMICS[name](), rounds=3).play()
    assert before.device.type == "cuda"
    assert not torch.equal(before, game.minimizer.values()[0])
