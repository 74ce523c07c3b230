"""Other methods' recipes: each is a page, plays to its end, and asks of its players what its paper does."""

import json
import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import zerosum
from tests.processes import lines
from zerosum.players import Bits, InputSpace, load_backbone
from zerosum.players.blocks import find_blocks
from zerosum.players.features import BlockTaps, modules_of
from zerosum.players.generator import generator_of
from zerosum.recipes import adadfq, adasg, akt, gdfq, zaq
from zerosum.recipes.common.data_free import NoPrior, Pair, Scene, Superposed, generated, pair_of, scene_of
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


@pytest.mark.slow
def test_gdfq_wins_back_more_than_chance(tmp_path):
    """One standard error is 2 points."""
    options = ["--rounds", "120", "--warmup", "40", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["gdfq", *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["after_top1"] >= summary["before_top1"] + 12


def played(recipe, config, scene=None):
    """A game, and a play of it."""
    game = recipe.make_game(scene or scene_of(config), config)
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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_akt_asks_nothing_of_a_copy_in_full_precision(precision):
    copy, rounded = (
        akt.Config(bits=bits, device="cpu", calibration=1, precision=precision) for bits in ("w32a32", "w2a3")
    )
    assert akt.recipe is adasg.recipe
    for config, least, most in ((copy, -1e-9, 1e-9), (rounded, 1.0, 1e3)):
        game, play = played(adasg, config)
        assert len(play.p_features) == len(play.q_features) == 4  # the head has no places
        with torch.no_grad():
            assert least <= game.minimizer.losses(play, None)["attention"].item() / config.attention * 2e4 <= most


def test_zaq_is_zero_sum_but_for_the_generators_wish():
    config = zaq.Config(device="cpu", warmup=0)
    pair = pair_of(config)
    game, play = played(zaq, config, Scene(pair, generated(pair, config), NoPrior(), config))
    assert play.seen is None
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
        (["gdfq", "--dynamics", "balanced"], "--dynamics balanced: nobody contests a payoff here"),
        (["zeroq", "--dynamics", "balanced"], "--dynamics balanced: there is no game here"),
        (["zaq", "--quantized-steps", "0"], "--quantized-steps 0"),
        (["qimera", "--conditioning", "batchnorm"], "--conditioning batchnorm: a latent between classes is a sum"),
        (["gdfq", "--renewals", "1"], "--renewals 1 --block-steps 0: no blocks answer"),
        (["adasg", "--renewals", "9", "--rounds", "10"], "--renewals 9: expected fewer than the 6 rounds"),
        (["reconstruction", "--quantized-lr", "0.1"], "--quantized-lr 0.1: there is no game here"),
        (["gdfq", "--distillation", "-1"], "--distillation -1"),
        (["akt", "--attention", "nan"], "--attention nan"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


class Plain(nn.Module):
    """Convolution, pooling, head, in one row: its features are of the convolution."""

    def __init__(self):
        super().__init__()
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), *pooled)

    def forward(self, x):
        return self.layers(x)


def tapped(network, space):
    return BlockTaps(network, modules_of(network, find_blocks(network, space).blocks))


def space_of(channels, side):
    return InputSpace(channels, (side, side), (0.5,) * channels, (0.5,) * channels)


@pytest.mark.parametrize(
    ("make", "space", "outputs"),
    [
        (lambda: load_backbone("digits_resnet8"), space_of(1, 8), ["bn1", "layer1.0", "layer2.0", "layer3.0"]),
        (
            lambda: load_backbone("test_resnet", "random"),
            space_of(3, 64),
            ["maxpool", *(f"layer{i}.0" for i in (1, 2, 3, 4))],
        ),
        (Plain, space_of(1, 8), ["layers.2"]),  # all of it is one block
    ],
)
def test_block_taps_read_what_blocks_give_before_it_is_pooled(make, space, outputs):
    network, seen = make().eval(), {}
    for name in outputs:
        network.get_submodule(name).register_forward_hook(lambda m, a, output, name=name: seen.update({name: output}))
    images, taps = torch.randn(3, space.channels, *space.size), tapped(network, space)
    network(images)
    assert taps.take() == []  # nobody listened
    taps.listen()
    network(images)
    assert [torch.equal(*pair) for pair in zip(taps.take(), seen.values(), strict=True)] == [True] * len(outputs)
    network(images)
    assert taps.take() == []
    taps.remove()
    taps.listen()
    network(images)
    assert taps.take() == []


def test_of_a_block_nothing_is_held_but_what_it_gave_last():
    network, given = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)), []
    for layer in network:
        layer.register_forward_hook(lambda module, args, output: given.append(weakref.ref(output)))
    taps = BlockTaps(network, [["0", "1"]])
    taps.listen()
    with torch.no_grad():
        network(torch.randn(1, 1, 8, 8))
    assert [tensor() is not None for tensor in given] == [False, True]


@pytest.mark.parametrize(
    ("make", "space", "shapes"),
    [
        (lambda: load_backbone("digits_vit"), space_of(1, 8), {(48, 4, 4), (48, 16, 1)}),
        (
            lambda: timm.create_model("test_vit"),
            space_of(3, 160),
            {(64, 10, 10), (64, 100, 1)},
        ),  # without the class token
        (
            lambda: timm.create_model(
                "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1,), num_heads=(1,)
            ),
            space_of(3, 56),
            {(24, 14, 14)},  # which it holds channels last
        ),
    ],
)
def test_tokens_and_channels_that_come_last(make, space, shapes):
    network = make().eval()
    taps = tapped(network, space)
    taps.listen()
    network(torch.randn(2, space.channels, *space.size))
    assert {tuple(x.shape[1:]) for x in taps.take()} == shapes


@pytest.mark.parametrize("name", ["akt", "zaq"])
def test_a_network_of_the_users_is_quantized_by_what_its_convolution_gives(name):
    options = {"rounds": 3, "warmup": 1, "batch_size": 4, "calibration": 1, "device": "cpu", "progress": False}
    result = zerosum.quantize(Plain(), "w4a4", input_size=(1, 8, 8), mean=0.5, std=0.5, recipe=name, **options)
    assert result.summary["rounds"] == 3


def test_a_network_without_places_is_told_so():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match="none of its blocks gives features of places"):
        zerosum.quantize(flat, "w4a4", input_size=(1, 8, 8), mean=0.5, std=0.5, recipe="zaq", progress=False)
