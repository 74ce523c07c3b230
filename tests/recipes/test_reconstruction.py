"""Blocks answer one after another: what they begin with, what they end with, and what becomes of it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from tests.strategies import seeds
from zerosum import Game, Match, Player, Responding
from zerosum.players import Bits, InputSpace, Scheme, calibrate, load_backbone, quantizable_layers
from zerosum.players.moments import AlignedMoments
from zerosum.players.quantization.layers import weight_quantizer
from zerosum.players.recording import record_inputs, record_output
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.reconstruction import Reconstruction, variance_of
from zerosum.recipes.common.step_sizes import parameter_groups

SPACE = InputSpace(2, (8, 8), (0.5,) * 2, (0.5,) * 2)


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    )


def reconstructing(pair, images, **options):
    """The reconstruction, and a match in which each round is a block's."""
    calibrate(pair.student, images.split(16))
    reconstruction = Reconstruction(pair, lambda: images, **options)
    sgd = SGD(pair.student.parameters(), 0.1)
    player = Player("quantized", pair.student, sgd, "minimize", surrogate=lambda q: q.square().mean())
    game = Game((player,), lambda _: pair.student(images))
    return reconstruction, Match(game, Responding(reconstruction), len(reconstruction.blocks))


@settings(max_examples=10)
@given(seeds, st.sampled_from(["minmax", "mse", "lsq", "adaround"]), st.integers(2, 8), st.sampled_from([0.0, 0.5]))
def test_no_block_is_worse_after_its_match(seed, weights, bits, dropped):
    pair = Pair(small_network(seed), Bits(bits, bits), Scheme(weights, activation_range="lsq"), SPACE)
    images = torch.randn(24, 2, 8, 8)
    reconstruction, match = reconstructing(pair, images, steps=5, batch_size=8, dropped=dropped)
    match.play()
    assert [answer.block for answer in reconstruction.answers] == ["0 … 2", "3 … 6", "7"]
    assert all(answer.after <= answer.before for answer in reconstruction.answers)
    # What is said of the last block is so: nothing that it learned was lost on the way.
    block, like = reconstruction.blocks[-1], images
    with AlignedMoments(pair.teacher, images).of(pair.teacher, pair.student):
        wanted, found = (
            record_output(network, block, record_inputs(network, block, images, 24), like, 24)
            for network in (pair.teacher, pair.student)
        )
    error = (found - wanted).square().mean() / wanted.var(correction=0)
    assert error.item() == pytest.approx(reconstruction.answers[-1].after, rel=1e-3, abs=1e-9)


def test_a_step_too_large_leaves_everything_as_it_was(monkeypatch):
    monkeypatch.setattr("zerosum.recipes.common.step_sizes._LEVELS", 1e30)
    monkeypatch.setattr("zerosum.recipes.common.step_sizes._SHARE", 1e30)
    pair = Pair(small_network(), Bits(4, 4), Scheme("mse", activation_range="mse"), SPACE)
    before = copy.deepcopy(pair.student.state_dict())
    reconstruction, match = reconstructing(pair, torch.randn(24, 2, 8, 8), steps=5, batch_size=8)
    match.play()
    assert all(answer.after == answer.before for answer in reconstruction.answers)
    names = {name for name, _ in pair.student.named_parameters()}
    assert all(torch.equal(pair.student.state_dict()[name], before[name]) for name in names)


def test_learned_rounding_begins_with_exact_fractions_and_ends_at_levels():
    network, images = small_network(), torch.randn(24, 2, 8, 8)
    pair = Pair(network, Bits(3, 32), Scheme("adaround"), SPACE)
    nearest = Pair(network, Bits(3, 32), Scheme("mse"), SPACE)
    assert torch.equal(pair.student(images), nearest.student(images))  # nothing was learned yet
    rounders = [weight_quantizer(layer) for layer in quantizable_layers(pair.student).values()]
    for rounder in rounders:
        rounder.rounding.learning(rounder, True)
    layers = zip(*(quantizable_layers(both).values() for both in (pair.student, network)), strict=True)
    for layer, original in layers:
        low, high = (end.reshape(-1, *[1] * (original.weight.ndim - 1)) for end in weight_quantizer(layer).grid().range)
        exact = original.weight.clamp(low, high)  # beyond the grid, values are cut off
        torch.testing.assert_close(layer.weight, exact, atol=1e-5, rtol=0)
    for rounder in rounders:
        rounder.rounding.learning(rounder, False)
    reconstruction, match = reconstructing(pair, images, steps=60, batch_size=8)
    match.play()
    for layer in quantizable_layers(pair.student).values():
        quantizer = weight_quantizer(layer)
        levels = layer.weight / quantizer.grid().beside(layer.weight, 0).scale
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert reconstruction.answers[-1].after < reconstruction.answers[-1].before


def test_all_dropped_is_the_block_in_float():
    """With weights in full precision and every activation left as it is, Q's block is P's, from the first step on."""
    pair = Pair(small_network(), Bits(32, 2), Scheme(), SPACE)
    _, match = reconstructing(pair, torch.randn(24, 2, 8, 8), steps=3, batch_size=8, dropped=1.0)
    losses = []

    class Seeing(Match):
        def play(self):
            first = self.game.play(self.game.sample())
            losses.append((first.found - first.wanted).abs().max().item())
            super().play()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zerosum.recipes.common.reconstruction.Match", Seeing)
        match.play()
    assert len(losses) == 3
    assert max(losses) < 1e-6


def test_a_block_that_can_be_exact_becomes_so():
    """Weights on levels already, and a bias that is off: the bias is what there is to learn."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        network[1].weight.copy_(torch.randint(-3, 5, (3, 4)).float())
        network[1].weight[:, :2] = torch.tensor([-3.0, 4.0])
    pair = Pair(network, Bits(3, 32), Scheme(), InputSpace(1, (2, 2), (0.5,), (0.5,)))
    with torch.no_grad():
        pair.student[1].bias.add_(0.005)
    reconstruction, match = reconstructing(pair, torch.randn(64, 1, 2, 2), steps=400, batch_size=32)
    match.play()
    (answer,) = reconstruction.answers
    assert answer.after < 0.2 * answer.before
    torch.testing.assert_close(pair.student[1].weight, network[1].weight, atol=1e-3, rtol=0)


def test_weights_end_at_levels_so_that_a_small_step_turns_none_over():
    pair = Pair(small_network(), Bits(3, 8), Scheme("mse"), SPACE)
    reconstruction, match = reconstructing(pair, torch.randn(24, 2, 8, 8), steps=30, batch_size=8)
    match.play()
    better = {answer.block for answer in reconstruction.answers if answer.after < answer.before}
    learned = [name for block in reconstruction.blocks if block.name in better for name in block.layers]
    assert learned
    for layer in map(pair.student.get_submodule, learned):
        before = layer.weight.clone()
        torch.testing.assert_close(layer.parametrizations.weight.original, before)
        with torch.no_grad():
            original = layer.parametrizations.weight.original
            scale = weight_quantizer(layer).grid().beside(original, 0).scale
            original.add_(0.4 * scale * torch.randn_like(original).sign())
        torch.testing.assert_close(layer.weight, before)


def test_steps_are_relative_to_each_scale():
    pair = Pair(small_network(), Bits(4, 4), Scheme("lsq", activation_range="lsq"), SPACE)
    calibrate(pair.student, [torch.randn(16, 2, 8, 8)])
    one = [group["lr"] for group in parameter_groups(pair.student, 10**6)]
    with torch.no_grad():
        for parameter in pair.student.parameters():
            parameter.mul_(8)
    other = [group["lr"] for group in parameter_groups(pair.student, 10**6)]
    named = [name for name, _ in pair.student.named_parameters()]
    for name, a, b in zip(named, one, other, strict=True):
        assert b == pytest.approx(8 * a, rel=1e-4) or a == pytest.approx(2e-7), name  # of zero: the least


@pytest.mark.parametrize(("share", "rest"), [(0.02, 10), (0.5, 2)])
def test_weights_of_which_little_is_seen_take_small_steps_and_affine_parameters_larger_ones(share, rest):
    pair = Pair(small_network(), Bits(4, 4), Scheme("lsq"), SPACE)
    calibrate(pair.student, [torch.randn(16, 2, 8, 8)])
    sizes = {name: parameter.numel() for name, parameter in pair.student.named_parameters()}
    weights = {name for name in sizes if name.endswith("weight.original")}
    most = 100 * max(sizes[name] for name in weights)
    more, much, few = ([g["lr"] for g in parameter_groups(pair.student, n)] for n in (10**9, most, round(share * most)))
    assert much == more
    for (name, size), a, b in zip(sizes.items(), much, few, strict=True):
        factor = min(1, share * most / size / 100) ** 0.5 if name in weights else 1 if name.endswith("scale") else rest
        assert b == pytest.approx(factor * a), name


def test_broken_off_between_two_blocks_and_taken_up_again():
    def begun():
        torch.manual_seed(5)
        pair = Pair(load_backbone("digits_resnet8"), Bits(2, 3), Scheme("mse", activation_range="lsq"))
        return pair, *reconstructing(pair, torch.randn(40, 1, 8, 8), steps=4, batch_size=8, dropped=0.5)

    pair, reconstruction, whole = begun()
    whole.play()
    expected = copy.deepcopy(pair.student.state_dict()), list(reconstruction.answers)
    for blocks in (1, 3):
        pair, reconstruction, first = begun()
        first.rounds = blocks
        first.play()
        state = copy.deepcopy(first.state_dict())
        pair, reconstruction, rest = begun()
        torch.manual_seed(99)
        rest.load_state_dict(state)
        rest.play()
        assert reconstruction.answers == expected[1]
        assert all(torch.equal(value, expected[0][name]) for name, value in pair.student.state_dict().items())


@given(seeds, st.sampled_from([0.0, 1.0, -1e4]), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_the_variance_of_a_recording_far_from_zero(seed, mean, dtype):
    values = mean + 10 * torch.randn(40, 3, 50, generator=torch.Generator().manual_seed(seed))
    values = values.to(dtype)
    assert variance_of(values) == pytest.approx(values.double().var(correction=0).item(), rel=1e-4)


def test_what_makes_no_sense_is_refused():
    pair = Pair(small_network(), Bits(4, 4), space=SPACE)
    for options in ({"steps": 0}, {"steps": 1, "batch_size": 0}, {"steps": 1, "dropped": 1.5}):
        with pytest.raises(ValueError, match="expected"):
            Reconstruction(pair, lambda: torch.zeros(1, 2, 8, 8), **options)
