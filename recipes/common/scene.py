"""A pair in front of images: one play, and the two players of most methods."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum import Player, Term, players
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.prior import Prior
from zerosum.recipes.common.source import Source


class Play(NamedTuple):
    """One evaluation: labels (N,), logits (N, C) of P and Q, and what the prior took of P."""

    labels: Tensor
    p: Tensor
    q: Tensor
    seen: Any


class Scene:
    """Images of a source, seen by P and Q side by side, each network forward once."""

    def __init__(self, pair: Pair, source: Source, prior: Prior, config: DataFreeOptions) -> None:
        self.pair, self.source, self.prior, self.config = pair, source, prior, config
        # The student stays as it is: a compiled backward pass computes all gradients, and each loss needs only some.
        self._images = torch.compile(source.images) if config.compile else source.images
        self._teach = torch.compile(pair.teacher) if config.compile else pair.teacher

    def play(self, drawn: Any) -> Play:
        """What was drawn as images, seen by both networks."""
        with self._arithmetic():
            images = self._images(drawn)
            p, q = self._teach(images), self.pair.student(images)
        p, q = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (p, q))
        return Play(self.source.labels(drawn), p, q, self.prior.take())

    @torch.no_grad()
    def calibrate(self) -> None:
        """Observe the student's activation ranges on images that the source makes now."""
        batches = (self.source.images(self.source.sample()) for _ in range(self.config.calibration))
        title = "observing activation ranges"
        with self._arithmetic():
            players.calibrate(self.pair.student, players.progress(batches, title, self.config.calibration))

    def natural(self, weight: float) -> dict[str, Term]:
        """The prior as a term of whoever makes the images."""
        return {self.prior.name: lambda play: weight * self.prior.loss(play.seen)}

    def generator(self, lr: float, surrogate: Term, terms: Mapping[str, Term]) -> Player:
        """The source's module as the player that makes the images, as published (Adam)."""
        adam = Adam(self.source.module.parameters(), lr, betas=(0.5, 0.999), fused=True)
        return Player(
            "generator", self.source.module, adam, "maximize", surrogate=surrogate, terms=terms, growth_limit=100
        )

    def quantized(self, lr: float, surrogate: Term, terms: Mapping[str, Term] | None = None) -> Player:
        """Q as the player that learns on them, as published (SGD with Nesterov momentum; the step size falls along a
        cosine), when the warm-up is over. Its ranges are observed when it comes in, and now, where it is to wait."""
        student, warmup = self.pair.student, self.config.warmup_rounds
        sgd = SGD(student.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
        if warmup:
            self.calibrate()
        return Player(
            "quantized network",
            student,
            sgd,
            "minimize",
            surrogate=surrogate,
            terms=terms or {},
            schedule=CosineAnnealingLR(sgd, max(1, self.config.rounds - warmup)),
            sits_out=range(warmup),
            on_entry=self.calibrate,
            growth_limit=10,  # it starts trained
        )

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.pair.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
