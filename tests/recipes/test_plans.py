"""What a run does where nobody says: more for small networks, and what is said holds."""

from types import SimpleNamespace

import pytest
import torch

from zerosum.players import Bits, InputSpace, input_space, load_backbone
from zerosum.recipes.adasg import Config
from zerosum.recipes.common.data_free import scene_of
from zerosum.recipes.common.effort import multiply_accumulates, plan_of
from zerosum.recipes.common.held_out import DIVERGENCE, HeldOut
from zerosum.recipes.common.pair import Pair


def test_multiply_accumulates_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 5))
    assert multiply_accumulates(network, InputSpace(2, (6, 6), (0.5,) * 2, (0.5,) * 2)) == 3 * 2 * 9 * 16 + 48 * 5


def test_effort_and_size_decide():
    small, large = load_backbone("digits_resnet8"), load_backbone("resnet18", "random")
    plans = {
        (effort, name): plan_of(effort, network, input_space(network), Bits(4, 8))
        for effort in ("quick", "default", "thorough")
        for name, network in (("small", small), ("large", large))
    }
    for name in ("small", "large"):
        quick, default, thorough = (plans[effort, name] for effort in ("quick", "default", "thorough"))
        assert quick.rounds < default.rounds < thorough.rounds
        assert quick.block_steps < default.block_steps <= thorough.block_steps
        assert quick.pool < default.pool <= thorough.pool
    assert plans["default", "large"].rounds < plans["default", "small"].rounds
    assert 2 * plans["default", "large"].measurements == plans["default", "small"].measurements
    assert (plans["default", "large"].leaves, plans["default", "small"].leaves) == (1, 0)  # of 8 pixels a side
    roomy = plan_of("default", small, InputSpace(1, (16, 16), (0.3,), (0.4,)), Bits(4, 8))
    assert roomy.leaves == 0.5
    assert all(plan.warmup <= plan.rounds // 2 for plan in plans.values())
    medium = load_backbone("cifar_resnet32", "random")
    plan = plan_of("default", medium, input_space(medium), Bits(2, 2))
    assert 2 * plan.warmup < plan.rounds < plans["default", "small"].rounds
    assert (plan.leaves, plan.renewals) == (0.5, 1)
    lite = load_backbone("tf_efficientnet_lite0", "random")  # large too, with a fifth of the other's operations
    assert plan_of("default", lite, input_space(lite), Bits(4, 8)).rounds == plans["default", "large"].rounds


def test_what_is_said_holds():
    network = load_backbone("digits_resnet8")

    def plan(**options):
        return Config(**options).plan(network, input_space(network))

    assert plan(rounds=10)[:2] == (10, 4)
    assert plan(rounds=10, warmup=9)[:2] == (10, 9)
    assert plan(rounds=10, warmup=90)[:2] == (10, 10)
    assert plan(rounds=0).block_steps == 0
    assert plan(block_steps=0).block_steps == 0
    assert [plan(renewals=n).renewals for n in (None, 0, 3)] == [1, 0, 3]
    assert [plan(rounds=n, warmup=100).renewals for n in (299, 300)] == [0, 1]  # too short to be worth it
    assert plan(leaves=1.0).renewals == plan(effort="quick").renewals == plan(block_steps=0).renewals == 0
    said = plan(pool=7, block_steps=3, dropped=0.25, leaves=0.0)
    assert (said.pool, said.block_steps, said.dropped, said.leaves) == (7, 3, 0.25, 0)
    assert (plan(bits="w4a4").dropped, plan(bits="w4a8").dropped) == (0.5, 0)


@pytest.mark.parametrize("options", [{"leaves": 1.5}, {"dropped": -0.1}, {"pool": 0}, {"block_steps": -1}])
def test_what_makes_no_sense_is_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}"):
        Config(**options).check()


def see(held_out, measured):
    held_out.on_round(None, SimpleNamespace(measured=measured))


def test_what_is_nearest_to_the_teacher_on_images_put_aside_is_kept():
    pair = Pair(load_backbone("digits_resnet8"), Bits(32, 32))
    held_out = HeldOut(pair)
    assert held_out.measure() == {}
    held_out.put_aside(torch.randn(40, 1, 8, 8))
    assert held_out.measure() == {DIVERGENCE: 0}
    bias = pair.student.linear.bias
    measured = []
    for offset in (2.0, 0.5, 1.0):
        with torch.no_grad():
            bias.copy_(pair.teacher.linear.bias)
            bias[0] += offset
        measured.append(held_out.measure())
        see(held_out, measured[-1])
    # Of ten logits one is off by d: half of d² (1/10 - 1/100).
    assert [figures[DIVERGENCE] for figures in measured] == pytest.approx(
        [0.045 * d * d for d in (2, 0.5, 1)], rel=1e-3
    )
    again = HeldOut(pair)
    again.load_state_dict(held_out.state_dict())
    again.restore()
    assert (bias - pair.teacher.linear.bias)[0].item() == pytest.approx(0.5, abs=1e-5)
    assert again.least == held_out.least


def test_what_is_put_aside_is_renewed_with_the_pool_and_what_is_kept_then_has_to_be_nearest_on_that():
    scene = scene_of(Config(pool=32, block_steps=1, rounds=5))
    renew, held_out = scene.reconstruction.images, scene.held_out
    torch.manual_seed(0)
    renew()
    before = held_out.state_dict()
    see(held_out, held_out.measure())
    torch.manual_seed(0)
    renew()  # as when a run is resumed between two blocks
    assert torch.equal(held_out.state_dict()["images"], before["images"])
    assert held_out.least < float("inf")
    with torch.no_grad():
        for parameter in scene.source.module.parameters():
            parameter.add_(0.1)
    torch.manual_seed(0)
    renew()
    assert len(held_out.state_dict()["images"]) == 8
    assert not torch.equal(held_out.state_dict()["images"], before["images"])
    kept = {name: value.clone() for name, value in scene.pair.student.state_dict().items()}
    with torch.no_grad():
        scene.pair.student.linear.bias.add_(1)
    see(held_out, None)  # blocks are answering, and nothing was measured on the new images yet
    assert held_out.least == float("inf")
    assert held_out.restore()
    assert all(torch.equal(value, kept[name]) for name, value in scene.pair.student.state_dict().items())
