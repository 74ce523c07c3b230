"""Methods that make all images first: each is a page, plays to its end, and asks of its players what its paper does."""

import json

import pytest
import torch
import torch.nn.functional as F

import zerosum
from tests.matches import broken_off
from tests.processes import lines
from zerosum.objectives import feature_alignment, half_variance, low_pass, selective_cross_entropy
from zerosum.players import Bits, load_backbone
from zerosum.players.features import HeadTap
from zerosum.recipes import adasg, hast, intraq, synq
from zerosum.recipes.common.augmentation import Rolled
from zerosum.recipes.common.data_free import Pair, pair_of, prior_of, scene_of
from zerosum.recipes.common.perturbation import reaching_images
from zerosum.recipes.common.pixels import Pixels, noise
from zerosum.recipes.common.pool import pool_scene
from zerosum.recipes.common.synthesis import Synthesis
from zerosum.runs.run import main

IMAGES = ["--pool", "20", "--synthesis-rounds", "3", "--synthesis-images", "8", "--batch-size", "8", "--device", "cpu"]
Q = "quantized network"
LEARNING = {
    "intraq": {"surrogate", "cross_entropy"},
    "hast": {"surrogate", "perturbed"},
    "synq": {"surrogate", "perturbed", "activation_map"},
}


@pytest.mark.parametrize("name", [*LEARNING, "zeroq", "genie", "psaq"])
def test_each_plays_to_its_end_and_leaves_the_same_kind_of_folder(name, tmp_path):
    run, short = tmp_path / "run", ["--rounds", "4", "--calibration", "2"] if name in LEARNING else []
    steps = ["--block-steps", "1"] if name == "genie" else []
    assert main([name, *IMAGES, *short, *steps, "--out", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert {"before_top1", "after_top1", "quantized_bytes"} <= summary.keys()
    matches = summary["matches"]
    assert matches["images"]["rounds"] == 3  # of 8, 8 and 4 images
    if name in LEARNING:
        assert matches["quantization"]["rounds"] == 4
        assert set(lines(run / "quantization")[-1]["losses"][Q]) == LEARNING[name]
    else:
        assert matches["reconstruction"]["rounds"] == (5 if name == "genie" else 0)
    assert zerosum.load(run)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", ["intraq", "synq"])
def test_blocks_may_be_reconstructed_on_the_images_first(name, tmp_path):
    options = [*IMAGES, "--rounds", "2", "--block-steps", "1", "--bits", "w4a4"]
    options += ["--backbone", "digits_vit"] if name == "intraq" else []
    assert main([name, *options, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["matches"]["quantization"]["rounds"] == 2 + 5


def scene_and_game(recipe, **options):
    config = recipe.Config(pool=16, batch_size=8, calibration=1, device="cpu", **options)
    pair = pair_of(config)
    scene = pool_scene(pair, prior_of(pair.teacher), config)
    scene.pixels.classes.random_(10)
    scene.look_inside()
    return scene, recipe.make_game(scene, config)


def test_hasts_second_loss_is_that_of_images_a_step_uphill():
    scene, game = scene_and_game(hast, perturbation=0.02)
    play = game.play(game.sample())

    def loss(play):
        return half_variance(play.p, play.q).mean() + 50 * feature_alignment(play.p_features, play.q_features)

    losses = game.minimizer.losses(play, None)
    torch.testing.assert_close(losses["surrogate"], loss(play))
    images = play.images.detach().requires_grad_()
    (uphill,) = torch.autograd.grad(loss(scene.see(images, play.labels)), images)
    torch.testing.assert_close(losses["perturbed"], loss(scene.see(images.detach() + 0.02 * uphill.sign(), None)))
    assert losses["perturbed"] > losses["surrogate"]


def test_synqs_losses_by_hand():
    scene, game = scene_and_game(synq, cutoff=2.0, selective=0.5, threshold=0.9, crop=1.0, activation_map=3.0)
    drawn = game.sample()
    play = game.play(drawn)
    torch.testing.assert_close(play.images, low_pass(scene.pixels.values[drawn], 2.0))
    losses = game.minimizer.losses(play, None)
    easy = selective_cross_entropy(play.q, play.p, play.labels, 0.9)
    expected = half_variance(play.p, play.q).mean() + 0.5 * easy
    expected = expected + 50 * feature_alignment(play.p_features, play.q_features)
    torch.testing.assert_close(losses["surrogate"], expected)
    assert 0 < losses["activation_map"] < 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_copy_in_full_precision_has_nothing_to_learn(precision):
    for recipe in (hast, synq):
        _, game = scene_and_game(
            recipe, bits="w32a32", precision=precision, **({"selective": 0.0} if recipe is synq else {})
        )
        losses = game.minimizer.losses(game.play(game.sample()), None)
        assert all(loss.abs() < 1e-9 for loss in losses.values())


def test_the_pool_takes_no_gradient_from_what_learns_on_it():
    scene, game = scene_and_game(hast)
    assert scene.pixels.values.requires_grad
    play = reaching_images(scene)(game.sample())
    sum(game.minimizer.losses(play, None).values()).backward()
    assert scene.pixels.values.grad is None


def test_intraqs_centres_are_sums_over_what_is_there():
    scene, _ = scene_and_game(intraq)
    scene.pixels.there[3:9] = True
    with HeadTap(scene.pair.teacher, scene.pair.space) as head:
        centres = intraq.class_centres(scene, head)
        scene.pair.teacher(scene.pixels.values)
        features, labels = head.features, scene.pixels.classes
    for label in range(10):
        members = [features[i] for i in range(3, 9) if labels[i] == label]
        torch.testing.assert_close(centres[label], sum(members, torch.zeros(features.shape[1])), rtol=1e-4, atol=1e-4)
    assert not scene.pair.teacher.linear._forward_pre_hooks  # which came off


def test_intraqs_images_broken_off_and_taken_up_again():
    def begun():
        torch.manual_seed(5)
        config = intraq.Config(synthesis_rounds=3, synthesis_images=8, pool=20, device="cpu")
        return intraq.recipe(config).begin("images", {}, 5).match

    whole, _, rest = broken_off(begun, 1)
    expected = whole.game.maximizer.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in rest.game.maximizer.module.state_dict().items())
    assert expected["there"].all()
    assert len(expected["classes"].unique()) > 3


def test_rolled_and_flipped_by_hand():
    images = torch.arange(9.0).reshape(1, 1, 3, 3)
    source = Rolled(Pixels(images, 1), 1)
    chosen = torch.tensor([0])
    assert source.images((chosen, (0, 1), False)).flatten().tolist() == [2, 0, 1, 5, 3, 4, 8, 6, 7]
    assert source.images((chosen, (1, 0), True)).flatten().tolist() == [8, 7, 6, 2, 1, 0, 5, 4, 3]
    offsets = {source.sample()[1:] for _ in range(300)}
    assert len(offsets) == 9 * 2


def test_head_features_are_what_the_classifier_is_given():
    pair = Pair(load_backbone("digits_resnet8"), Bits(4, 4))
    with HeadTap(pair.teacher, pair.space) as head:
        logits = pair.teacher(torch.randn(3, 1, 8, 8))
    torch.testing.assert_close(F.linear(head.features, pair.teacher.linear.weight, pair.teacher.linear.bias), logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hast", "--crop", "0"], "--crop 0.0: expected a share above 0"),
        (["hast", "--warmup", "5"], "--warmup 5: there is no game here"),
        (["intraq", "--near", "0.9"], "--near 0.9 --far 0.8"),
        (["intraq", "--least-sure", "1.5"], "--least-sure 1.5"),
        (["synq", "--cutoff", "0"], "--cutoff 0"),
        (["synq", "--backbone", "digits_vit"], "digits_vit gives no maps of where it looks"),
        (["psaq", "--backbone", "digits_resnet8"], "no attention, no LayerNorm"),
        (["psaq", "--variation", "-1"], "--variation -1"),
        (["zeroq", "--quantized-lr", "0.1"], "--quantized-lr 0.1: there is no game here"),
        (["genie", "--synthesis-images", "0"], "--synthesis-images 0"),
        (["zeroq", "--block-steps", "100"], "--block-steps 100: no blocks are reconstructed in 0 rounds"),
        (["genie", "--dynamics", "extragradient"], "--dynamics extragradient: there is no game here"),
        (["psaq", "--quantized-lr", "0.1"], "--quantized-lr 0.1: there is no game here"),
        (["hast", "--stop-when-stationary"], "--stop-when-stationary True: nobody contests a payoff"),
        (["gdfq", "--gap-every", "5"], "--gap-every 5: nobody contests a payoff"),
        (["gdfq", "--dynamics", "balanced"], "--dynamics balanced: nobody contests a payoff"),
        (["dfq", "--dynamics", "balanced"], "--dynamics balanced: nothing is played"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("makers", [True, False])
def test_a_generators_images_are_moved_too(makers):
    """Where it moves, gradients reach its images; where Q alone does, they are seen once more."""
    config = adasg.Config(perturbation=0.05, warmup=0, block_steps=0, calibration=1, batch_size=4, device="cpu")
    scene = scene_of(config)
    game = adasg.make_game(scene, config)
    with game.only(game.players if makers else [game.minimizer]):
        play = game.play(game.sample())
        losses = game.minimizer.losses(play, None)
    assert play.images.requires_grad is makers

    def loss(play):
        return half_variance(play.p, play.q).mean()

    images = play.images.detach().requires_grad_()
    (uphill,) = torch.autograd.grad(loss(scene.see(images, play.labels)), images)
    moved = scene.see(images.detach() + 0.05 * uphill.sign(), play.labels)
    torch.testing.assert_close(losses["perturbed"], loss(moved), rtol=1e-4, atol=1e-3)
    assert losses["perturbed"] != losses["surrogate"]


class Stopping(zerosum.Watcher):
    def on_round(self, match, record):
        match.stop()


@pytest.mark.parametrize("name", ["hast", "zeroq", "genie"])
def test_broken_off_while_images_are_made_there_is_a_rounded_network(name):
    options = {"pool": 20, "synthesis_rounds": 2, "synthesis_images": 8, "device": "cpu", "progress": False}
    result = zerosum.quantize("digits_resnet8", "w8a8", recipe=name, watchers=[Stopping()], **options)
    assert result.interrupted
    assert result.summary["after_top1"] == result.summary["before_top1"] > 90


def test_no_rounds_of_synthesis_leave_noise():
    pair = Pair(load_backbone("digits_resnet8"), Bits(4, 4))
    torch.manual_seed(3)
    made = Synthesis(pair, prior_of(pair.teacher), 0, 8).labelled(12, {})
    torch.manual_seed(3)
    assert torch.equal(made.images, noise(12, pair))
