"""How well a quantized copy does on real images, beside the network it was made of."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from players.progress import progress

Figures = dict[str, float]


@torch.no_grad()
def predict(
    network: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device, title: str = "measuring"
) -> tuple[Tensor, Tensor]:
    """The network's top-1 classes, and the labels, over all of ``loader``: two (images,) int64 tensors on the CPU."""
    classes, labels = [], []
    for images, batch_labels in progress(loader, title, len(loader)):
        classes.append(network(images.to(device)).argmax(dim=1).cpu())
        labels.append(batch_labels)
    return torch.cat(classes), torch.cat(labels)


def percent_equal(a: Tensor, b: Tensor) -> float:
    """Share of places in which two (N,) tensors agree, in percent: accuracy, or agreement of two networks."""
    return (a == b).double().mean().item() * 100


class Examination:
    """Measures a quantized copy against its full-precision ``teacher``, which is measured once, at the start.

    Args:
        loader: images and labels (:func:`players.load_data`).
    """

    def __init__(
        self, teacher: nn.Module, student: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device
    ) -> None:
        self.student, self.loader, self.device = student, loader, device
        self._teacher_classes, labels = predict(teacher, loader, device, "measuring the full-precision network")
        self.teacher_top1 = percent_equal(self._teacher_classes, labels)

    def __call__(self) -> Figures:
        """``top1`` of the copy and its ``agreement`` with the teacher (same class, right or wrong), in percent."""
        classes, labels = predict(self.student, self.loader, self.device)
        return {"top1": percent_equal(classes, labels), "agreement": percent_equal(classes, self._teacher_classes)}


def report(
    examination: Examination | None, measured: Sequence[tuple[int, Figures]], entry: int
) -> tuple[dict[str, Any], Table]:
    """Figures for a summary, and a table: full precision, quantized before the game, after it.

    Args:
        examination: None where there were no data to measure on; the figures are then None too.
        measured: (rounds played, figures) of each measurement.
        entry: rounds played when the copy came in. "Before the game" is the newest measurement up to then: of a copy
            that is rounded and has its activation ranges, but has not moved.
    """
    if examination is None:
        table = Table("accuracy was not measured: no --data given")
        return dict.fromkeys(("teacher_top1", "before_top1", "after_top1", "agreement")), table
    before = [figures for round, figures in measured if round <= entry][-1]
    after = measured[-1][1]
    table = Table("network", "top-1 (%)", "agreement with full precision (%)")
    table.add_row("full precision", f"{examination.teacher_top1:.2f}", "100.00")
    table.add_row("quantized, before the game", f"{before['top1']:.2f}", f"{before['agreement']:.2f}")
    table.add_row("quantized, after the game", f"{after['top1']:.2f}", f"{after['agreement']:.2f}")
    return {
        "teacher_top1": examination.teacher_top1,
        "before_top1": before["top1"],
        "after_top1": after["top1"],
        "agreement": after["agreement"],
    }, table
