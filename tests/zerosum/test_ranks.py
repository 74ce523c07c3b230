"""Several ranks play as one process of the whole batch does."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close

from tests.ranks import played
from zerosum import Game, Match, Player, Watcher, make_dynamics, ranks
from zerosum.divergence import Diverged
from zerosum.ranks.launchers import place_of
from zerosum.recipes import adasg
from zerosum.recipes.common.data_free import scene_of
from zerosum.recipes.common.pixels import Pixels
from zerosum.replicas import differ_by

RULES = ("simultaneous", "alternating", "extragradient", "optimistic", "consensus", "symplectic")
BATCH = 16


class SameDraws:
    """Draws of latents and labels for the whole batch, of which each rank takes its part."""

    def __init__(self, source):
        self.module, self.images, self.labels, self.shown = source.module, source.images, source.labels, source.shown
        self.chance = torch.Generator().manual_seed(7)

    def sample(self):
        latents = torch.randn(BATCH, self.module.latent_dim, generator=self.chance)
        labels = torch.randint(self.module.num_classes, (BATCH,), generator=self.chance)
        return ranks.part_of(latents), ranks.part_of(labels)


class Last(Watcher):
    """Keeps what the last round came to."""

    def on_round(self, match, record):
        self.result = [record.result.payoff, record.result.losses]


def play_adasg(rule, rounds):
    """On the embedded network, the first two rounds of the generator alone: all parameters and buffers, and what was
    recorded of the last."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        config = adasg.Config(rounds=rounds, warmup=2, block_steps=0, batch_size=BATCH, calibration=2, bits="w4a4")
        scene = scene_of(config)
        scene.source = SameDraws(scene.source)
        scene._images = scene.source.images
        for network in (scene.pair.teacher, scene.pair.student, scene.source.module):
            network.double()
        game = adasg.make_game(scene, config)
        # Not Adam, which makes steps of what rounding leaves of gradients that are 0.
        game.maximizer.optimizer = SGD(game.maximizer.module.parameters(), lr=1e-3)
        last = Last()
        Match(game, make_dynamics(rule, 1e-3), rounds, watchers=[last]).play()
        states = {player.name: player.module.state_dict() for player in game.players}
        return {f"{name} {key}": x for name, own in states.items() for key, x in own.items()}, last.result
    finally:
        torch.set_default_dtype(torch.float32)


def play_all(rounds):
    return [play_adasg(rule, rounds) for rule in RULES]


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_two_ranks_play_adasg_as_one_process_of_the_whole_batch(rounds, tmp_path):
    alone = play_all(rounds)
    first, second = played(play_all, rounds, folder=tmp_path)
    for rule, (state, record), *found in zip(RULES, alone, first, second, strict=True):
        for its_state, its_record in found:
            assert_close(its_state, state, atol=1e-9, rtol=0, msg=lambda said, rule=rule: f"{rule}: {said}")
            assert_close(its_record, record, atol=1e-7, rtol=0)  # which magnifies it
        (own, _), (other, _) = found
        assert all(torch.equal(x, other[name]) for name, x in own.items()), rule


def test_the_place_of_a_process_is_what_its_launcher_says():
    assert place_of({}) == (0, 1, 0)
    assert place_of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (5, 8, 1)
    slurm = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    assert place_of({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == (0, 1, 0)  # of a batch script itself
    assert place_of(slurm | {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}) == (3, 4, 1)
    with pytest.raises(ValueError, match=r"SLURM started 4 tasks: .* set MASTER_ADDR"):
        place_of(slurm)


def told(make, how):
    try:
        how(make)
    except Exception as error:
        return type(error).__name__, str(error)


def refuse(by, error):
    if ranks.index() == by:
        raise error
    return by


def what_ranks_agree_on():
    """Of errors, gradients that one alone has, and players that each begins with otherwise."""
    found = {
        "the first": told(lambda: refuse(0, FileExistsError("run: there")), ranks.together),
        "the second": told(lambda: refuse(1, Diverged(3, "what")), ranks.together),
        "inside": told(lambda: ranks.gathered(refuse(1, ValueError("no"))), ranks.together),
        "alone": told(lambda: refuse(0, KeyError("name")), ranks.from_first),
        "nobody": ranks.together(ranks.index),
    }
    p = torch.zeros(2)
    with ranks.apart():
        one = torch.ones(2) if ranks.index() else None
        found["gradients"] = ranks.gradient_means([one, None, torch.ones(2)], [p, p, p])
    torch.manual_seed(ranks.index())
    point = nn.Linear(2, 2)

    def observe():  # alike but for rounding, say
        with torch.no_grad():
            point.weight.add_(ranks.index() + 1)

    optimizer = SGD(point.parameters(), lr=0.1)
    average = AveragedModel(point)
    player = Player("point", point, optimizer, "minimize", on_entry=observe, average=average)
    game = Game([player], lambda x: point(x).square().mean(), lambda play: play, lambda: torch.randn(ranks.share(4), 2))
    Match(game, make_dynamics("simultaneous", 0.1), 2).play()
    return found | {"differ by": differ_by([player]), "weights": point.weight.detach(), "next": torch.rand(1)}


def test_ranks_fail_together_and_begin_where_the_first_does(tmp_path):
    first, second = played(what_ranks_agree_on, folder=tmp_path)
    assert [found["the first"] for found in (first, second)] == [
        ("FileExistsError", "run: there"),
        ("Told", "run: there"),
    ]
    for found in (first, second):
        assert found["the second"] == ("Told", "rank 1: Diverged: round 3: what")
        assert found["inside"] == ("Told", "rank 1: no")
    assert [found["alone"] for found in (first, second)] == [("KeyError", "'name'"), ("Told", "KeyError: 'name'")]
    for index, found in enumerate((first, second)):
        assert found["nobody"] == index
        half, nothing, whole = found["gradients"]
        assert (half.tolist(), nothing, whole.tolist()) == ([0.5, 0.5], None, [1.0, 1.0])
        assert found["differ by"] == 0
    assert torch.equal(first["weights"], second["weights"])
    assert first["next"] == second["next"]


def what_ranks_have():
    """Of draws and of exchanges."""
    own = torch.tensor([1.0, 4.0, 2.0]) - ranks.index()
    own.requires_grad_(True)
    pixels = Pixels(torch.zeros(9, 1), batch_size=7)
    found = {"common": torch.rand(3)}
    with ranks.apart():
        found |= {"share": ranks.share(16), "own": torch.rand(3), "pixels": pixels.sample()}
        with ranks.alike():
            found |= {"all": ranks.share(16), "inside": torch.rand(3)}
        found["behind"] = torch.rand(3)
        (found["slope"],) = torch.autograd.grad(ranks.least(own), own)
        found["least"] = ranks.least(own.detach())
    found["after"] = torch.rand(3)
    return found | {"any": ranks.any_of(ranks.index() == 1), "first": ranks.from_first(ranks.index)}


def test_ranks_draw_apart_and_are_alike_again(tmp_path):
    first, second = played(what_ranks_have, folder=tmp_path)
    for name in ("common", "inside", "after"):
        assert torch.equal(first[name], second[name]), name
    for name in ("own", "behind"):
        assert not torch.equal(first[name], second[name]), name
    assert len({tuple(found[name].tolist()) for found in (first, second) for name in ("own", "inside", "behind")}) == 5
    shown = torch.cat([first["pixels"], second["pixels"]]).tolist()
    assert len(set(shown)) == len(shown) == 7
    for found in (first, second):
        assert (found["share"], found["all"], found["least"], found["any"], found["first"]) == (8, 16, 0.0, True, 0)
    # Whose mean over the ranks is the slope of the least: 1.
    assert (first["slope"].tolist(), second["slope"].tolist()) == ([0.0, 0.0, 0.0], [2.0, 0.0, 0.0])
