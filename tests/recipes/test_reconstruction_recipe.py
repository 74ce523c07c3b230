"""Images from anywhere, and blocks reconstructed on them: what a run leaves behind, and what it leaves alone."""

import copy
import json

import pytest
import torch
from torch import nn

import zerosum
from tests.matches import broken_off
from tests.processes import lines
from zerosum import report
from zerosum.objectives import bn_alignment
from zerosum.players import Bits, load_backbone
from zerosum.players.swing import swinging
from zerosum.recipes import reconstruction
from zerosum.recipes.common.augmentation import Crops
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.pixels import Pixels, answered, noise
from zerosum.recipes.common.prior import BatchNormPrior
from zerosum.recipes.common.synthesis import DeviationPrior, Latents, Synthesis, input_moments, synthesis_prior
from zerosum.runs.run import main

FEW = [
    "--synthesis-rounds",
    "4",
    "--synthesis-images",
    "10",
    "--pool",
    "24",
    "--block-steps",
    "3",
    "--calibration",
    "2",
]
FILES = {"config.json", "summary.json", "quantized.safetensors", "layers.csv", "blocks.csv", "classes.csv"}


def played(folder, *options):
    given = [reconstruction.__file__, "--device", "cpu", *FEW, *options, "--out", str(folder)]
    assert main(given) == 0
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pair():
    return Pair(load_backbone("digits_resnet8"), Bits(4, 4))


@pytest.mark.parametrize("images", ["leaves", "noise", "generator", "pixels", "latents"])
def test_each_kind_of_images_ends_well(images, tmp_path):
    run = tmp_path / "run"
    summary = played(run, "--images", images)
    assert {path.name for path in run.iterdir()} >= FILES
    made = images not in ("leaves", "noise")
    assert list(summary["matches"]) == (["images", "reconstruction"] if made else ["reconstruction"])
    if made:  # a round for every ten of 24, or one for all of a generator's
        assert summary["matches"]["images"]["rounds"] == (1 if images == "generator" else 3)
    assert summary["matches"]["reconstruction"]["rounds"] == len(blocks_of(run))
    assert "surrogate" in lines(run / "reconstruction")[-1]["losses"]["quantized network"]
    assert zerosum.load(run)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert report.main([str(run)]) == 0


def blocks_of(run):
    return (run / "blocks.csv").read_text(encoding="utf-8").splitlines()[1:]


def test_rounds_are_passes_through_all_blocks(tmp_path):
    one, two, none = (tmp_path / name for name in ("one", "two", "none"))
    once, twice = played(one), played(two, "--rounds", "2")
    assert [summary["matches"]["reconstruction"]["rounds"] for summary in (once, twice)] == [5, 10]
    assert len(blocks_of(two)) == 2 * len(blocks_of(one))
    summary = played(none, "--rounds", "0")
    assert summary["before_top1"] == summary["after_top1"]
    assert not (none / "blocks.csv").exists()


def test_a_seed_fixes_a_run(tmp_path):
    same = [played(tmp_path / name, "--images", "latents", "--seed", "3") for name in ("one", "two")]
    played(tmp_path / "other", "--images", "latents", "--seed", "4")
    one, two, other = ((tmp_path / name / "quantized.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other
    assert same[0]["after_top1"] == same[1]["after_top1"]


def begun():
    torch.manual_seed(5)
    config = reconstruction.Config(images="latents", synthesis_rounds=3, synthesis_images=10, pool=24, block_steps=3)
    return reconstruction.recipe(config).begin("images", {}, 5).match


def test_broken_off_between_two_batches_and_taken_up_again():
    whole, _, rest = broken_off(begun, 1)
    expected = whole.game.maximizer.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in rest.game.maximizer.module.state_dict().items())


def test_what_has_no_meaning_here_is_refused(capsys):
    for option, value in (("--warmup", "3"), ("--leaves", "0.5")):
        assert main([reconstruction.__file__, option, value]) == 2
        assert "there is no game here" in capsys.readouterr().err
    assert main([reconstruction.__file__, "--synthesis-rounds", "-1"]) == 2


def hooks(network):
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]


def test_swing_comes_off_and_leaves_outputs_unchanged(pair):
    images, network = torch.randn(8, 1, 8, 8), copy.deepcopy(pair.teacher)
    before, expected = hooks(network), network(images)
    with swinging(network):
        assert len({network(images).sum().item() for _ in range(8)}) > 1
        assert hooks(network) != before
    assert hooks(network) == before
    assert torch.equal(network(images), expected)
    with pytest.raises(RuntimeError), swinging(network):
        network(images[:, :, 0, 0])
    assert hooks(network) == before


def test_swing_moves_by_a_pixel_and_reflects():
    """A strided convolution that takes every second pixel as it is sees any of nine images."""
    take = nn.Conv2d(1, 1, 1, stride=2, bias=False)
    nn.init.ones_(take.weight)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    padded = nn.functional.pad(image, [1] * 4, mode="reflect")
    moved = [padded[:, :, a : a + 4, b : b + 4] for a in range(3) for b in range(3)]
    wanted = {tuple(take(x).flatten().tolist()) for x in moved}
    with swinging(take):
        found = {tuple(take(input=image).flatten().tolist()) for _ in range(200)}
        assert take(torch.ones(1, 1, 1, 4)).shape == (1, 1, 1, 2)  # nothing to reflect
    assert found == wanted
    assert len(wanted) > 4


def test_latents_and_their_generator_begin_anew(pair):
    synthesis = Synthesis(pair, synthesis_prior(pair.teacher), rounds=3, batch_size=8)
    (one, seen), (two, _) = synthesis.latents(6), synthesis.latents(6)
    assert torch.equal(seen, pair.teacher(one).argmax(dim=1))
    assert one.shape == two.shape == (6, 1, 8, 8)
    assert not torch.allclose(one, two, atol=0.1)
    assert not one.requires_grad
    torch.testing.assert_close(one.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)  # its last layer is a BatchNorm
    latents = Latents(6, pair.space, pair.device)
    assert set(latents.parameters()) == {latents.values, *latents.generator.parameters()}


def test_images_are_closer_to_what_batchnorm_remembers(pair):
    """No law says that 200 steps of Adam lower a loss; that noise is ten times further off does."""
    prior = synthesis_prior(pair.teacher)
    synthesis = Synthesis(pair, prior, rounds=200, batch_size=16)

    def distance(images):
        prior.listen()
        with torch.no_grad():
            pair.teacher(images)
            return prior.loss(prior.take()).item()

    assert distance(synthesis.pixels(32).images) < 0.1 * distance(noise(32, pair))


def test_deviations_by_hand(pair):
    layers = [([0.0, 2.0], [4.0, 9.0]), ([1.0], [0.0])]
    remembered = [([1.0, 2.0], [1.0, 9.0]), ([1.0], [4.0])]
    moments = [[tuple(map(torch.tensor, layer)) for layer in side] for side in (layers, remembered)]
    loss = DeviationPrior(pair.teacher).loss(tuple(moments))
    assert loss.item() == pytest.approx((1 + 1) / 2 + 4)  # of the first layer, two channels; of the second, one
    assert BatchNormPrior(pair.teacher).loss(tuple(moments)) == bn_alignment(*moments)


def test_moments_of_each_image_by_hand():
    image = torch.tensor([3.0, 3.0, 1.0, 1.0]).reshape(1, 1, 2, 2)  # mean 2, deviation 1
    constant = torch.zeros(1, 1, 2, 2, requires_grad=True)
    loss = input_moments(torch.cat([image, constant]))
    assert loss.item() == pytest.approx((4 + 1) / 2)
    loss.backward()
    assert torch.equal(constant.grad, torch.zeros_like(constant))


def test_a_pool_shows_no_image_twice_in_a_batch(pair):
    pool = Pixels(noise(20, pair), 8)
    pool.put(4, answered(images := torch.randn(10, 1, 8, 8), pair, 3))
    assert torch.equal(pool.images(torch.arange(4, 14)), images)
    assert torch.equal(pool.labels(torch.arange(4, 14)), pair.teacher(images).argmax(dim=1))
    drawn = pool.sample()
    assert len(drawn) == len(set(drawn.tolist())) == 8


def test_crops_show_parts_and_are_labelled_as_what_they_are_of(pair):
    pool = Pixels(noise(20, pair), 8)
    pool.put(0, answered(pool.values.detach(), pair, 20))
    source = Crops(pool, 0.5)
    drawn = source.sample()
    assert torch.equal(source.labels(drawn), pool.labels(drawn[0]))
    assert source.images(drawn).shape == (8, 1, 8, 8)
    assert not torch.equal(source.images(drawn), pool.images(drawn[0]))
    torch.testing.assert_close(source.images(drawn), source.images(drawn))  # all chance is in what was drawn
    shown = source.images(source.shown(5, 0))
    torch.testing.assert_close(shown, pool.images(torch.arange(5)))


def test_pixels_for_classes_are_what_the_terms_ask_for(pair):
    synthesis = Synthesis(pair, synthesis_prior(pair.teacher), rounds=60, batch_size=8)
    made = synthesis.labelled(40, {"class": lambda seen: 10 * nn.functional.cross_entropy(seen.logits, seen.labels)})
    assert len(set(made.labels.tolist())) > 5
    assert (pair.teacher(made.images).argmax(dim=1) == made.labels).float().mean() > 0.9
