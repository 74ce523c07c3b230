"""Other methods' recipes: each is a page, plays to its end, and asks of its players what its paper does."""

import json

import pytest
import torch
import torch.nn.functional as F

import zerosum
from tests.processes import lines
from zerosum.players import Bits, find_backbone, load_backbone
from zerosum.players.blocks import find_blocks
from zerosum.players.features import BlockTaps
from zerosum.players.generator import generator_of
from zerosum.recipes import adadfq, adasg, akt, gdfq, zaq
from zerosum.recipes.common.data_free import Pair, Superposed, scene_of
from zerosum.runs import report
from zerosum.runs.run import main

RIVALS = {
    "adadfq": ({"surrogate", "disagreement", "agreement", "bn_alignment"}, {"surrogate"}),
    "akt": ({"surrogate", "disagreement", "agreement", "bn_alignment"}, {"surrogate", "attention"}),
    "gdfq": ({"surrogate", "bn_alignment"}, {"surrogate", "distillation"}),
    "qimera": ({"surrogate", "bn_alignment"}, {"surrogate", "distillation"}),
    "zaq": ({"payoff", "activation"}, {"payoff"}),
}
SHORT = ["--rounds", "4", "--warmup", "1", "--calibration", "2", "--batch-size", "8", "--device", "cpu"]


@pytest.mark.parametrize("name", RIVALS)
def test_each_plays_to_its_end_and_leaves_the_same_kind_of_folder(name, tmp_path):
    assert main([name, *SHORT, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rounds"] == 4  # and no blocks, as published
    assert {"before_top1", "after_top1", "quantized_bytes"} <= summary.keys()
    last = lines(tmp_path / "run")[-1]
    assert (last["payoff"] is None) == (name in ("gdfq", "qimera"))  # nobody contests one
    losses = last["losses"]
    assert (set(losses["generator"]), set(losses["quantized network"])) == RIVALS[name]
    assert zerosum.load(tmp_path / "run")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert report.main([str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("name", ["qimera", "zaq"])
def test_blocks_may_be_reconstructed_first_and_networks_have_no_batchnorm(name, tmp_path):
    options = ["--backbone", "digits_vit", "--data", "digits", "--block-steps", "1", "--pool", "8", *SHORT]
    assert main([name, *options, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rounds"] == 4 + 5


def test_gdfq_wins_back_more_than_chance(tmp_path):
    """One standard error is 2 points."""
    options = ["--rounds", "120", "--warmup", "40", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["gdfq", *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["after_top1"] >= summary["before_top1"] + 12


def played(recipe, config):
    """A game, and a play of it."""
    scene = scene_of(config)
    scene.look_inside()
    game = recipe.make_game(scene, config)
    return game, game.play(game.sample())


def test_adadfq_is_adasg_with_other_constants():
    config = adadfq.Config()
    assert (config.low, config.high, config.disagreement, config.agreement, config.bn_alignment) == (
        0.1,
        0.8,
        0.2,
        0.1,
        1,
    )
    assert adadfq.recipe is adasg.recipe


def test_gdfqs_losses_by_hand():
    game, play = played(gdfq, gdfq.Config(device="cpu", calibration=1))
    with torch.no_grad():
        generator, quantized = (player.losses(play, None) for player in game.players)
        torch.testing.assert_close(generator["surrogate"], F.cross_entropy(play.p, play.labels))
        torch.testing.assert_close(quantized["surrogate"], F.cross_entropy(play.q, play.labels))
        kl = F.kl_div((play.q / 20).log_softmax(1), (play.p / 20).softmax(1), reduction="batchmean")
        torch.testing.assert_close(quantized["distillation"], 400 * kl / 10)


def test_akt_asks_nothing_of_a_copy_in_full_precision():
    config = akt.Config(bits="w32a32", device="cpu", calibration=1)
    _, play = played(adasg, config)
    assert len(play.p_features) == len(play.q_features) == 4  # the head has no places
    term = akt.attention_divergence(play.p_features, play.q_features)
    torch.testing.assert_close(term, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_zaq_is_zero_sum_but_for_the_generators_wish():
    scene = scene_of(zaq.Config(device="cpu", warmup=0))
    game = zaq.make_game(scene, scene.config)
    play = game.play(game.sample())
    payoff = game.payoff_of(play)
    generator, quantized = (player.losses(play, payoff) for player in game.players)
    assert generator["payoff"].item() == -quantized["payoff"].item() < 0
    assert generator["activation"].item() == pytest.approx(-0.1 * play.p_features[-1].abs().mean().item())
    assert set(quantized) == {"payoff"}


def test_superposed_labels_have_as_much_of_each_class_as_the_latent():
    pair = Pair(load_backbone("digits_resnet8"), Bits(4, 4))
    source = Superposed(generator_of(pair.space, 1), 10, 64, share=0.5, mixed=3)
    kinds = set()
    for _ in range(20):
        drawn = source.sample()
        _, labels, weights = drawn
        kinds.add(labels.shape[1])
        torch.testing.assert_close(weights.sum(1), torch.ones(64))
        soft = source.labels(drawn)
        for image in range(3):
            for label in range(10):
                expected = weights[image][labels[image] == label].sum()
                torch.testing.assert_close(soft[image, label], expected)
        assert source.images(drawn).shape == (64, 1, 8, 8)
    assert kinds == {1, 3}
    shown = source.labels(source.shown(12, 0))
    assert torch.equal(shown.argmax(1), torch.arange(12) % 10)
    assert torch.equal(source.shown(12, 0)[0], source.shown(12, 0)[0])


def test_a_latent_is_the_weighted_sum_of_standardised_ones():
    pair = Pair(load_backbone("digits_resnet8"), Bits(4, 4))
    seen = []
    source = Superposed(generator_of(pair.space, 1), 10, 4, share=1.0, mixed=2)
    source.generator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents, labels, weights = source.sample()
    source.images((latents, labels, weights))
    each = source.embedding(labels) + latents
    each = (each - each.mean(2, keepdim=True)) / (each.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(seen[0], weights[:, :1] * each[:, 0] + weights[:, 1:] * each[:, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qimera", "--mixed", "0"], "--mixed 0"),
        (["qimera", "--superposed", "1.5"], "--superposed 1.5: expected a share"),
        (["zaq", "--dynamics", "extragradient"], "this game alternates"),
        (["zaq", "--quantized-steps", "0"], "--quantized-steps 0"),
        (["gdfq", "--distillation", "-1"], "--distillation -1"),
        (["akt", "--attention", "nan"], "--attention nan"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["digits_resnet8", "digits_vit"])
def test_block_taps_read_what_blocks_give_and_come_off(name):
    network, architecture = find_backbone(name)
    blocks = [block.modules[-1] for block in find_blocks(network).blocks]
    seen = {}
    for block in blocks:
        network.get_submodule(block).register_forward_hook(
            lambda m, a, output, block=block: seen.update({block: output})
        )
    taps = BlockTaps(network, blocks)
    network(torch.randn(3, 1, 8, 8))
    features = taps.take()
    assert all(x.ndim == 4 and len(x) == 3 for x in features)
    maps = [output for output in seen.values() if output.ndim > 2]
    assert len(features) == len(maps) == 4
    for found, output in zip(features, maps, strict=True):
        expected = output if output.ndim == 4 else output.mT[..., None]
        assert torch.equal(found, expected)
    assert taps.take() == []
    taps.remove()
    network(torch.randn(3, 1, 8, 8))
    assert taps.take() == []
    assert architecture.name == name
