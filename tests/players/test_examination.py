import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from zerosum.players import Examination, accuracy, predict, report
from zerosum.players.examination import interval

LOGITS = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]]).repeat(4, 1)  # ranks the classes 0, 1, 2, …
LABELS = torch.tensor([0, 4, 5, 6])
LOADER = [(LOGITS[:3], LABELS[:3]), (LOGITS[3:], LABELS[3:])]


class Reversed(nn.Module):
    def forward(self, x):
        return torch.where(torch.arange(len(x))[:, None] == 0, x, x.flip(1))


def test_the_five_likeliest_classes_are_ranked():
    ranked, labels = predict(nn.Identity(), LOADER, torch.device("cpu"))
    assert ranked.tolist() == [[0, 1, 2, 3, 4]] * 4
    assert labels.tolist() == LABELS.tolist()
    assert accuracy(ranked, labels) == {"top1": 25, "top5": 50}
    few, _ = predict(nn.Identity(), [(LOGITS[:, :3], LABELS)], torch.device("cpu"))
    assert few.tolist() == [[0, 1, 2]] * 4


def test_a_copy_is_measured_beside_its_teacher():
    examination = Examination(nn.Identity(), Reversed(), LOADER, torch.device("cpu"))
    assert examination.teacher == {"top1": 25, "top5": 50}
    # By batch, the first image is ranked as by the teacher; the others from 6 down to 2.
    assert examination() == {"top1": 25, "top5": 75, "agreement": 50}


def test_an_interval_by_hand():
    # Wilson: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), p = 0.88, n = 500, z = 1.96.
    assert interval(88, 500) == pytest.approx((84.85, 90.56), abs=0.01)
    low, high = interval(100, 500)
    assert (low, high) == pytest.approx((99.24, 100), abs=0.01)


@given(st.integers(1, 5000), st.data())
def test_an_interval_holds_the_share_and_narrows(images, data):
    share = 100 * data.draw(st.integers(0, images)) / images
    low, high = interval(share, images)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 100
    narrow_low, narrow_high = interval(share, 100 * images)
    assert narrow_high - narrow_low < high - low


def test_a_report_has_every_stage():
    examination = Examination(nn.Identity(), Reversed(), LOADER, torch.device("cpu"))
    stages = {
        stage: {"top1": top1, "top5": top1, "agreement": top1, "divergence": 0.5}
        for stage, top1 in (("before", 25.0), ("reconstructed", 50.0), ("after", 75.0))
    }
    figures, table = report(examination, stages)
    assert [figures[f"{stage}_top1"] for stage in ("teacher", "before", "reconstructed", "after")] == [25, 25, 50, 75]
    assert (figures["agreement"], figures["images"]) == (75, 4)
    assert figures["intervals"]["after_top1"] == interval(75, 4)
    assert set(figures["intervals"]) == set(figures) - {"intervals", "images"}
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert "75.0 (30.1–95.4)" in console.file.getvalue()
    assert "reconstructed" in console.file.getvalue()


def test_without_data_nothing_is_claimed():
    figures, table = report(None, {"before": {}, "after": {}})
    assert set(figures.values()) == {None}
    assert "not measured" in str(table.columns[0].header)
