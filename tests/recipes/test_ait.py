"""AIT: a page, plays to its end, and asks of its players what its paper does; a run goes on from where it stood."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

import zerosum
from tests.processes import lines
from zerosum.players.quantization.flips import FlipFraction
from zerosum.players.quantization.integers import integers_of
from zerosum.players.quantization.precision import quantizable_layers
from zerosum.recipes import ait
from zerosum.recipes.common.data_free import scene_of
from zerosum.runs import report
from zerosum.runs.run import main

SHORT = ["--rounds", "4", "--warmup", "1", "--calibration", "2", "--batch-size", "8", "--device", "cpu"]


def test_it_plays_to_its_end(tmp_path):
    assert main([ait.__file__, *SHORT, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rounds"] == 4
    assert {"before_top1", "after_top1", "quantized_bytes"} <= summary.keys()
    last = lines(tmp_path / "run")[-1]
    assert last["payoff"] is None  # nobody contests one
    assert set(last["losses"]["generator"]) == {"surrogate", "bn_alignment"}
    assert set(last["losses"]["quantized network"]) == {"surrogate"}  # no labels
    assert zerosum.load(tmp_path / "run")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert report.main([str(tmp_path / "run")]) == 0


def test_blocks_may_be_reconstructed_first(tmp_path):
    options = ["--backbone", "digits_vit", "--data", "digits", "--block-steps", "1", "--pool", "8", *SHORT]
    assert main([ait.__file__, *options, "--out", str(tmp_path / "run")]) == 0


def test_its_losses_by_hand():
    config = ait.Config(device="cpu", calibration=1)
    game = ait.make_game(scene_of(config), config)
    play = game.play(game.sample())
    with torch.no_grad():
        generator, quantized = (player.losses(play, None) for player in game.players)
    torch.testing.assert_close(generator["surrogate"], F.cross_entropy(play.p, play.labels))
    kl = F.kl_div((play.q / 20).log_softmax(1), (play.p / 20).softmax(1), reduction="batchmean")
    torch.testing.assert_close(quantized["surrogate"], 400 * kl, rtol=1e-5, atol=0)
    (optimizer,) = game.minimizer.optimizers
    assert isinstance(optimizer, FlipFraction)
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_a_share_of_each_weight_comes_to_other_levels_in_a_round():
    config = ait.Config(device="cpu", calibration=1, batch_size=4, rounds=8, warmup=0, flips=0.02)
    scene = scene_of(config)
    match = begun(config, scene)
    layers = quantizable_layers(scene.pair.student).values()
    before = [integers_of(layer).levels.clone() for layer in layers]
    match.rounds = 1
    match.play()
    for layer, levels in zip(layers, before, strict=True):
        turned = (integers_of(layer).levels != levels).double().mean().item()
        assert 0.02 <= turned < 0.04, layer


def begun(config, scene=None):
    scene = scene or scene_of(config)
    return ait.Keeping(scene).stage(ait.make_game(scene, config), scene.rounds).match


def test_broken_off_and_taken_up_again():
    config = ait.Config(device="cpu", calibration=2, batch_size=4, rounds=6, warmup=1, flips=0.01)
    whole = begun(config)
    whole.play()
    expected = whole.game.minimizer.module.state_dict()
    first = begun(config)
    first.rounds = 3
    first.play()
    state = copy.deepcopy(first.state_dict())
    rest = begun(config)
    torch.manual_seed(99)
    rest.load_state_dict(state)
    rest.play()
    assert all(torch.equal(value, expected[name]) for name, value in rest.game.minimizer.module.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--flips", "1.5"], "--flips 1.5: expected a share"), (["--flips", "-1"], "--flips -1")],
)
def test_bad_options_are_refused(arguments, message, capsys, tmp_path):
    assert main([ait.__file__, *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
