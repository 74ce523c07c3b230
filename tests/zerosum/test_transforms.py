import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from tests.strategies import normal, scales, seeds
from tests.zerosum.games import Point
from zerosum import Accumulate, Game, Match, Player, Simultaneous, clip_norm
from zerosum.transforms import Remembering


@st.composite
def gradients(draw):
    """Of up to five parameters, some of which the loss does not reach."""
    shapes = draw(st.lists(st.sampled_from([None, (), (1,), (7,), (3, 4)]), max_size=5))
    scale, seed = draw(scales), draw(seeds)
    return [None if shape is None else scale * normal(seed + i, *shape) for i, shape in enumerate(shapes)]


def length(vectors):
    return math.sqrt(sum(vector.square().sum().item() for vector in vectors if vector is not None))


@given(gradients(), st.floats(1e-6, 1e6))
def test_clipped_gradients_have_the_norm_at_most_and_the_direction_they_had(found, most):
    clipped = clip_norm(most)(found)
    assert length(clipped) == pytest.approx(min(length(found), most), rel=1e-12)
    for before, after in zip(found, clipped, strict=True):
        if before is None:
            assert after is None
        elif length(found) <= most:
            assert torch.equal(after, before)
        else:
            torch.testing.assert_close(after * length(found), before * most, rtol=1e-12, atol=0)


def test_a_norm_is_over_all_parameters_and_where_there_is_none_nothing_happens():
    """3 and 4 have the norm 5 together, though each alone is within 4."""
    found = [torch.tensor([3.0]), None, torch.tensor([[4.0]])]
    first, none, last = clip_norm(4.0)(found)
    assert (first.item(), none, last.item()) == (pytest.approx(2.4), None, pytest.approx(3.2))
    assert [gradient.item() for gradient in (found[0], found[2])] == [3.0, 4.0]  # what was handed in stays
    assert [zero.tolist() for zero in clip_norm(1.0)([torch.zeros(2), torch.zeros(1)])] == [[0.0, 0.0], [0.0]]
    assert list(clip_norm(1.0)([None, None])) == [None, None]
    assert list(clip_norm(1.0)([])) == []


def test_a_player_takes_no_longer_step_than_its_clipping_allows():
    """The loss 3a + 4b, clipped to 1, by steps of 0.5: along (0.6, 0.8)."""
    point = Point([0.0, 0.0])
    player = Player("y", point, SGD(point.parameters(), 0.5), "minimize", transform=clip_norm(1.0))
    player.step([torch.tensor([3.0, 4.0], dtype=torch.float64)])
    assert point.value.tolist() == pytest.approx([-0.3, -0.4])
    assert player.steepest.item() == 4.0  # of what the loss gave


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_the_mean_of_a_batchs_parts_is_the_step_of_the_whole(seed, parts, each):
    whole = normal(seed, parts * each, 3)
    for make in (lambda p: SGD(p, 0.1, momentum=0.9), lambda p: Adam(p, 0.1)):
        ends = []
        for transform, batches in ((None, [whole]), (Accumulate(parts), whole.chunk(parts))):
            point, rest = Point(normal(seed + 1, 3)), iter([*batches, *batches])
            player = Player("y", point, make(point.parameters()), "minimize", transform=transform)
            game = Game(
                (player,), lambda x, y=point: x @ y.value, lambda play: play.sin().mean(), lambda r=rest: next(r)
            )
            Match(game, Simultaneous(), rounds=2 * len(batches)).play()
            ends.append(point.value.detach())
            assert player.steps == 2
        torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-11)


@given(seeds, st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_what_is_not_reached_counts_as_zero_unless_it_never_is(seed, reached):
    """Which of three parameters each gradient reaches."""
    each = [[normal(seed + i, 2) if there else None for there in row] for i, row in enumerate(reached)]
    accumulate = Accumulate(len(each))
    *waiting, mean = [accumulate(one) for one in each]
    assert waiting == [None] * (len(each) - 1)
    for found, column in zip(mean, zip(*each, strict=True), strict=True):
        if all(one is None for one in column):
            assert found is None
        else:
            zeros = torch.zeros(2, dtype=torch.float64)
            torch.testing.assert_close(found, sum(zeros if one is None else one for one in column) / len(each))
    assert accumulate.state_dict() == {"sums": [], "taken": 0}


def accumulating(rounds):
    torch.manual_seed(3)
    point = Point([1.0, -2.0])
    adam = Adam(point.parameters(), 0.1)
    player = Player("y", point, adam, "minimize", transform=Accumulate(3), schedule=StepLR(adam, 1, 0.5))
    game = Game((player,), lambda x: (x - point.value).square().mean(), lambda play: play, lambda: torch.randn(4, 2))
    return Match(game, Simultaneous(), rounds), player


def test_schedules_step_where_the_optimizers_do():
    for rounds, steps in ((2, 0), (3, 1), (8, 2), (9, 3)):
        match, player = accumulating(rounds)
        before = player.values()
        match.play()
        assert player.steps == steps
        assert player.step_size == pytest.approx(0.1 * 0.5**steps)
        assert torch.equal(before[0], player.values()[0]) == (steps == 0)


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_match_stopped_within_an_accumulation_goes_on_to_the_bit(stop):
    whole, expected = accumulating(9)
    whole.play()
    first, _ = accumulating(stop)
    first.play()
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second, found = accumulating(9)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.play()
    assert torch.equal(found.values()[0], expected.values()[0])
    assert found.step_size == expected.step_size


def test_what_makes_no_sense_is_refused():
    for most in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"clip_norm: expected a norm above 0; got {most}"):
            clip_norm(most)
    with pytest.raises(ValueError, match="Accumulate: expected at least 1 gradient; got 0"):
        Accumulate(0)


def test_only_a_transform_with_a_memory_is_asked_for_it():
    assert isinstance(Accumulate(1), Remembering)
    assert not isinstance(clip_norm(1.0), Remembering)


def test_gradients_in_half_precision_do_not_vanish_where_their_squares_overflow():
    (clipped,) = clip_norm(1.0)([torch.full((4,), 5e4, dtype=torch.float16)])
    assert clipped.dtype == torch.float16
    assert clipped.tolist() == pytest.approx([0.5] * 4, rel=1e-2)
