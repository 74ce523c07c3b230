"""How well a quantized copy does on real images, beside the network it was made of."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zerosum.players.data import class_names
from zerosum.players.loaders import check_labels, drawn_alike, number_of_batches
from zerosum.players.pace import Pace
from zerosum.players.progress import progress

Figures = dict[str, float]
CLASSES = "classes.csv"
_RANKS = 5


@dataclass(frozen=True)
class Share:
    """Of several processes that measure together: which one this is, of how many, and what gives all of them what each
    found, in order."""

    index: int
    count: int
    gather: Callable[[Any], Sequence[Any]]


ALL = Share(0, 1, lambda found: [found])
"""One process, alone."""


def predict(
    network: nn.Module,
    loader: DataLoader[tuple[Tensor, Tensor]],
    device: torch.device,
    title: str = "measuring",
    share: Share = ALL,
) -> tuple[Tensor, Tensor]:
    """The network's five (or all) likeliest classes, likeliest first, and the labels, over all of ``loader``.

    Of several processes, each runs the network on its share of the batches; all have to call.

    Returns:
        int64 tensors (images, 5) and (images,) on the CPU.
    """
    ranked, labels, _ = _predict(network, loader, device, title, share)
    return ranked, labels


@torch.no_grad()
def _predict(
    network: nn.Module,
    loader: DataLoader[tuple[Tensor, Tensor]],
    device: torch.device,
    title: str,
    share: Share,
    tells: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """The same, and how many classes there are; ``tells`` how long it will take, as soon as that can be seen."""
    own: dict[int, Tensor] = {}
    labels, classes = [], 0
    batches = number_of_batches(loader)
    pace = Pace(batches if tells else None)
    with drawn_alike():
        for place, (images, batch_labels) in enumerate(progress(loader, title, batches)):
            pace.read()
            labels.append(batch_labels.cpu())
            if place % share.count == share.index:
                logits = network(images.to(device, non_blocking=True))
                classes = logits.shape[1]
                own[place] = logits.topk(min(_RANKS, classes)).indices.cpu()
            pace.seen()
    found, classes_of = zip(*share.gather((own, classes)), strict=True)
    ranked = {place: part for parts in found for place, part in parts.items()}
    return torch.cat([ranked[place] for place in range(len(labels))]), torch.cat(labels), max(classes_of)


def percent(hits: Tensor) -> float:
    """Share of true ones in a (N,) tensor, in percent."""
    return hits.double().mean().item() * 100


def accuracy(ranked: Tensor, labels: Tensor) -> Figures:
    """``top1`` and ``top5`` in percent, of what :func:`predict` gives."""
    hits = ranked == labels[:, None]
    return {"top1": percent(hits[:, 0]), "top5": percent(hits.any(dim=1))}


def interval(share: float, images: int) -> tuple[float, float]:
    """95 % confidence interval, in percent, of a share in percent that was counted over ``images`` (Wilson, 1927)."""
    from scipy.stats import binomtest  # half a second, for runs that measure

    found = binomtest(round(share / 100 * images), images).proportion_ci(method="wilson")
    return 100 * found.low, 100 * found.high


class Examination:
    """Measures a quantized copy against its full-precision ``teacher``, which is measured once, at the start.

    Attributes:
        teacher: its ``top1`` and ``top5`` in percent.
        images: how many were looked at.

    Args:
        loader: images and labels (:func:`zerosum.players.load_data`).
        share: of several processes, which all make one and call it alike.

    Raises:
        ValueError: a label that is none of the network's classes.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        loader: DataLoader[tuple[Tensor, Tensor]],
        device: torch.device,
        share: Share = ALL,
    ) -> None:
        self.student, self.loader, self.device, self.share = student, loader, device, share
        ranked, labels, classes = _predict(
            teacher, loader, device, "measuring the full-precision network", share, tells=share.index == 0
        )
        check_labels(labels, classes)
        self._teacher_classes, self._labels, self.images = ranked[:, 0], labels, len(labels)
        self._copy_classes: Tensor | None = None
        self.teacher = accuracy(ranked, labels)

    def __call__(self) -> Figures:
        """In percent, of the copy: ``top1``, ``top5``, ``agreement`` with the teacher (one class, right or wrong).

        Raises:
            ValueError: the images do not come in the order in which the teacher saw them.
        """
        ranked, labels = predict(self.student, self.loader, self.device, share=self.share)
        if not torch.equal(labels, self._labels):
            raise ValueError("data: the loader's labels are not those of its first pass; give it shuffle=False")
        self._copy_classes = ranked[:, 0]
        return accuracy(ranked, labels) | {"agreement": percent(ranked[:, 0] == self._teacher_classes)}

    def write_classes(self, path: Path) -> None:
        """As comma-separated values, a line for each class that has images: their number, and the top-1 in percent of
        the teacher and of the copy as it was measured last."""
        if self._copy_classes is None:
            self()
        assert self._copy_classes is not None
        names = class_names(self.loader)
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(("class", "name", "images", "full_precision", "quantized"))
            for label in sorted(set(self._labels.tolist())):
                own = self._labels == label
                shares = (percent(found[own] == label) for found in (self._teacher_classes, self._copy_classes))
                writer.writerow((label, names.get(label, label), int(own.sum()), *shares))


STAGES = {
    "teacher": "full precision",
    "before": "rounded",
    "reconstructed": "reconstructed",
    "after": "as kept",
}
"""What an accuracy is of, by its name in a summary, and for people to read."""


def report(examination: Examination | None, stages: Mapping[str, Figures]) -> tuple[dict[str, Any], Table]:
    """Figures for a summary, with their 95 % intervals, and a table: of full precision, and of the copy by stage.

    Args:
        examination: None where there were no data to measure on; the figures are then None too.
        stages: what was measured of the copy, by names out of :data:`STAGES`, ``after`` the last.
    """
    if examination is None:
        keys = [f"{stage}_{rank}" for rank in ("top1", "top5") for stage in ("teacher", *stages)]
        no_figures = dict.fromkeys([*keys, "agreement", "intervals", "images"])
        return no_figures, Table("accuracy was not measured: no --data given")
    stages = {"teacher": examination.teacher | {"agreement": 100.0}, **stages}
    found = {f"{stage}_{rank}": figures[rank] for rank in ("top1", "top5") for stage, figures in stages.items()}
    found["agreement"] = stages["after"]["agreement"]
    intervals = {key: interval(value, examination.images) for key, value in found.items()}

    caption = f"{examination.images} images, 95 % intervals; agreement is with full precision"
    table = Table("percent", "top-1", "top-5", "agreement", caption=caption)
    for stage, figures in stages.items():
        shares = (figures[name] for name in ("top1", "top5", "agreement"))
        table.add_row(STAGES[stage], *(_draw_share(share, examination.images) for share in shares))
    return found | {"intervals": intervals, "images": examination.images}, table


def _draw_share(share: float, images: int) -> str:
    low, high = interval(share, images)
    return f"{share:.1f} ({low:.1f}–{high:.1f})"
