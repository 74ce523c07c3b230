import io

import pytest
import torch

from tests.zerosum.games import bilinear
from zerosum import AllOf, AnyOf, Criterion, Match, Patience, Simultaneous, Verdict


class Scripted(Criterion):
    """Holds in the readings that the script says."""

    def __init__(self, name, script, every=1):
        self.name, self.script, self.every, self.readings = name, script, every, 0

    def after(self, game):
        holds = self.script[self.readings]
        self.readings += 1
        return Verdict({self.name: float(self.readings)}, holds, f"{self.name} {'holds' if holds else 'does not'}")

    def state_dict(self):
        return {"readings": self.readings}

    def load_state_dict(self, state):
        self.readings = state["readings"]


def verdicts(criterion, readings):
    return [criterion.after(None) for _ in range(readings)]


def test_any_and_all():
    def parts():
        return Scripted("a", [False, True, False, True]), Scripted("b", [False, False, True, True])

    found = verdicts(AnyOf(*parts()), 4)
    assert [v.stationary for v in found] == [False, True, True, True]
    assert [v.reason for v in found] == ["a does not; b does not", "a holds", "b holds", "a holds; b holds"]
    assert found[2].figures == {"a": 3.0, "b": 3.0}

    found = verdicts(AllOf(*parts()), 4)
    assert [v.stationary for v in found] == [False, False, False, True]
    assert [v.reason for v in found] == ["a does not; b does not", "b does not", "a does not", "a holds; b holds"]


def test_patience_wants_readings_in_a_row():
    found = verdicts(Patience(Scripted("a", [True, True, False, True, True, True]), readings=3), 6)
    assert [v.stationary for v in found] == [False] * 5 + [True]
    assert found[-1].reason == "a holds (3 of 3 readings in a row)"


def test_each_is_read_as_often_as_it_asks():
    slow, fast = Scripted("slow", [True, False], every=6), Scripted("fast", [False] * 20, every=2)
    criterion = AnyOf(slow, fast)
    assert criterion.every == 2
    match = Match(bilinear(1.0, 1.0, 0.1), Simultaneous(), rounds=12, criterion=criterion)
    match.play()
    assert (slow.readings, fast.readings) == (2, 6)
    assert match.verdict.figures == {"slow": 2.0, "fast": 6.0}


@pytest.mark.parametrize("make", [lambda *c: Patience(AnyOf(*c), 2), lambda *c: AllOf(AnyOf(*c), Patience(c[0], 2))])
def test_a_saved_state_goes_on(make):
    def parts():
        return Scripted("a", [True, True, False, True, True, True], every=2), Scripted("b", [False] * 6, every=4)

    whole, first, second = make(*parts()), make(*parts()), make(*parts())
    expected = verdicts(whole, 3)[-1]
    verdicts(first, 2)
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.after(None) == expected


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="AnyOf of no criterion"):
        AnyOf()
    with pytest.raises(ValueError, match="at least one reading"):
        Patience(Scripted("a", []), 0)
