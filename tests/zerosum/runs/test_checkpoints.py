"""Checkpoints on disk, and what watches over them."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.zerosum.games import bilinear
from tests.zerosum.test_match import noisy_match
from zerosum import Match, Simultaneous, Watcher
from zerosum.randomness import random_state, seed_all, set_random_state
from zerosum.runs.checkpoints import Damaged, drop_after, load, load_newest, prune, save, saved
from zerosum.runs.files import write_whole
from zerosum.runs.watchers import Checkpoints, Journal


def state(round):
    return {"round": round, "tensor": torch.arange(100.0)}


def rounds(folder):
    return [int(path.name[:8]) for path in saved(folder)]


def test_what_is_saved_comes_back(tmp_path):
    path = save(tmp_path, state(7))
    assert load(path)["round"] == 7
    assert torch.equal(load(path)["tensor"], torch.arange(100.0))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]
    assert load_newest(tmp_path)[0]["round"] == 7
    assert load_newest(tmp_path / "none") == (None, [])


@given(st.data())
def test_no_change_of_a_file_goes_unnoticed(tmp_path_factory, data):
    path = save(tmp_path_factory.mktemp("run"), state(1))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(content[:place])
    else:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
        )
    with pytest.raises(Damaged, match="is damaged"):
        load(path)


def test_the_newest_that_is_whole_is_taken_and_what_is_damaged_named(tmp_path):
    paths = [save(tmp_path, state(round)) for round in (1, 2, 3, 10)]
    for path in paths[2:]:
        path.write_bytes(b"")
    found, damaged = load_newest(tmp_path)
    assert found["round"] == 2
    assert [path.name in str(error) for path, error in zip(paths[:1:-1], damaged, strict=True)] == [True, True]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(Damaged, match=paths[-1].name):
        load_newest(tmp_path)


def test_the_first_the_newest_and_the_best_are_kept(tmp_path):
    for round in range(6):
        save(tmp_path, state(round))
    for round in (2, 4):
        best = save(tmp_path, state(round), best=True)
    (tmp_path / "checkpoints" / "x.part").write_bytes(b"cut short")
    prune(tmp_path, keep=2)
    assert rounds(tmp_path) == [0, 4, 5]
    assert [path.name for path in (tmp_path / "checkpoints").glob("best-*")] == [best.name]
    assert not list(tmp_path.rglob("*.part"))
    kept = save(tmp_path, state(4) | {"again": True})
    drop_after(tmp_path, 4, but=kept)
    assert rounds(tmp_path) == [0, 4]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_all_generators_go_on_where_they_stood():
    import random

    import numpy as np

    def draw():
        return (
            torch.rand(2).tolist(),
            np.random.rand(2).tolist(),
            np.random.randn(),
            random.random(),
            random.gauss(0, 1),
        )

    seed_all(3)
    first = draw()
    seed_all(3)
    assert draw() == first
    kept = random_state()
    expected = draw()
    set_random_state(kept)
    assert draw() == expected


class Counter(Watcher):
    count = 0

    def on_round(self, match, record):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state.get("count", 0)


def test_watchers_remember(tmp_path):
    first, *_ = noisy_match(9)
    first.watchers = [Counter()]
    first.play()
    second, *_ = noisy_match(20)
    second.watchers = [Watcher(), counter := Counter()]  # another watches too
    second.load_state_dict(first.state_dict())
    second.play()
    assert counter.count == 20
    third, *_ = noisy_match(20)
    third.load_state_dict(first.state_dict())  # nobody does


def watched(folder, rounds, scores):
    values = iter(scores)
    journal = Journal(folder / "metrics.jsonl")
    keeper = Checkpoints(folder, journal, seconds=0, keep=2, best_by="score")
    match = Match(
        bilinear(1.0, 1.0, 0.1),
        Simultaneous(),
        rounds,
        measure=lambda: {"score": next(values)},
        measure_every=1,
        watchers=[journal, keeper],
    )
    return match, keeper


def test_the_best_by_the_measured_figure(tmp_path):
    match, _ = watched(tmp_path, 4, [0, 3, 5, 5, 4])
    match.play()
    (best,) = (tmp_path / "checkpoints").glob("best-*")
    assert load(best)["round"] == 2
    assert rounds(tmp_path) == [0, 3, 4]


def test_a_rewind_halves_the_steps_and_goes_further_back_each_time(tmp_path):
    match, keeper = watched(tmp_path, 5, range(100))
    match.play()
    found = []
    for _ in range(4):
        keeper.rewind(match)
        found.append((match.round, match.rewinds, match.game.maximizer.step_scale, rounds(tmp_path)))
    assert found == [(5, 1, 0.5, [0, 4, 5]), (4, 2, 0.25, [0, 4]), (0, 3, 0.125, [0]), (0, 4, 0.0625, [0])]
    match.rounds = 2
    match.play()
    assert match.game.maximizer.module.value.item() != 1.0
    assert load(saved(tmp_path)[-1])["rewinds"] == 4


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="keep at least 1"):
        Checkpoints(tmp_path, Journal(tmp_path / "j"), keep=0)
