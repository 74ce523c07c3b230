"""What Q rehearses while it plays: procedural images and such as it was reconstructed on, also after a resumption."""

from contextlib import nullcontext

import pytest
import torch

from zerosum.players import Bits, load_backbone
from zerosum.recipes import adasg
from zerosum.recipes.common.data_free import Pair, scene_of
from zerosum.recipes.common.rehearsal import Rehearsal


@pytest.fixture
def pair():
    return Pair(load_backbone("digits_resnet8"), Bits(32, 32))


def rehearsal(pair):
    return Rehearsal(pair, torch.zeros(3, 1, 8, 8), 16, nullcontext)


def seen(rehearsal):
    """The images that a term shows Q, each once."""
    shown = []
    handle = rehearsal.pair.student.register_forward_pre_hook(lambda network, args: shown.append(args[0]))
    term = rehearsal.term(lambda p, q: (p - q).abs().max())
    differences = [term(None) for _ in range(20)]
    handle.remove()
    return {image.numpy().tobytes() for image in torch.cat(shown)}, max(differences)


def test_procedural_images_stay_and_others_are_renewed(pair):
    one = rehearsal(pair)
    for value in (1.0, 2.0):
        one.put(torch.full((2, 1, 8, 8), value))
        found, difference = seen(one)
        assert found == {torch.full((1, 8, 8), v).numpy().tobytes() for v in (0.0, value)}
        assert difference == 0  # Q is P, in full precision


def test_a_resumed_match_rehearses_the_same(pair):
    one, other = rehearsal(pair), rehearsal(pair)
    one.put(torch.randn(5, 1, 8, 8))
    other.load_state_dict(one.state_dict())
    assert seen(other)[0] == seen(one)[0]


def rehearsing(**options):
    """A scene whose Q rehearses, where it has anything to."""
    scene = scene_of(adasg.Config(**options))
    scene.rehearsing(lambda p, q: (p - q).abs().max())
    return scene


def test_a_scene_rehearses_what_its_pool_had_where_its_generator_drifts_away_from_it():
    scene = rehearsing(backbone="digits_vit", pool=24, block_steps=1, rounds=5)
    assert len(scene.rehearsal.state_dict()["made"]) == 24  # of 8 pixels a side none is procedural
    assert scene.rehearsal in scene.watchers
    pool = {image.half().float().numpy().tobytes() for image in scene.pool()}
    assert seen(scene.rehearsal)[0] <= pool


def test_where_statistics_hold_generated_images_only_procedural_ones_are_rehearsed():
    scene = rehearsing(pool=24, block_steps=1, rounds=5, leaves=0.5)
    assert len(scene.rehearsal.state_dict()["made"]) == 0
    assert len(seen(scene.rehearsal)[0]) == 12


@pytest.mark.parametrize("options", [{"block_steps": 0, "rounds": 1}, {"pool": 24, "block_steps": 1, "rounds": 5}])
def test_what_would_not_be_forgotten_is_not_rehearsed(options):
    scene = rehearsing(**options)
    assert scene.rehearsal is None
    assert scene.rehearsing(lambda p, q: p.sum()) == {}
