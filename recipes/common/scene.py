"""A pair in front of images: one play, and the two players of most methods."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum import BalanceGap, During, Dynamics, Graphed, Player, Responding, Term, Watcher, players
from zerosum.players.blocks import find_blocks
from zerosum.players.features import BlockTaps, modules_of
from zerosum.players.leaves import dead_leaves
from zerosum.players.moments import AlignedMoments
from zerosum.players.probe import probe
from zerosum.recipes.common.arithmetic import computing_in
from zerosum.recipes.common.held_out import HeldOut
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.play import Play
from zerosum.recipes.common.prior import PatchPrior, Prior
from zerosum.recipes.common.reconstruction import Reconstruction
from zerosum.recipes.common.rehearsal import Rehearsal
from zerosum.recipes.common.rules import rule_of
from zerosum.recipes.common.source import Source

_HELD_OUT = 0.25  # images, as a share of the pool
_PROVISIONAL = 64  # images for ranges with which the quantized network waits


class Scene:
    """Images of a source, seen by P and Q side by side, each network forward once."""

    def __init__(self, pair: Pair, source: Source, prior: Prior, config: DataFreeOptions) -> None:
        self.pair, self.source, self.prior, self.config = pair, source, prior, config
        self.plan = config.plan(pair.teacher, pair.space)
        self.rehearsal: Rehearsal | None = None
        self.reconstruction: Reconstruction | None = None
        self.held_out: HeldOut | None = None
        if self.plan.block_steps:
            steps, size, dropped = self.plan.block_steps, config.batch_size, self.plan.dropped
            found = Reconstruction(pair, self._renewed_pool, steps, size, dropped, self.arithmetic)
            if found.blocks:
                self.reconstruction, self.held_out = found, HeldOut(pair)
        self._aside = max(1, round(_HELD_OUT * self.plan.pool))
        self._inside: tuple[BlockTaps, ...] = ()
        both = self.plan.rounds - self.plan.warmup
        if self.plan.renewals and self.plan.renewals >= both:
            raise ValueError(
                f"--renewals {self.plan.renewals}: expected fewer than the {both} rounds in which both play"
            )
        # The student stays as it is: a compiled backward pass computes all gradients, and each loss needs only some.
        self._images = torch.compile(source.images) if config.compile else source.images
        self._teach = torch.compile(pair.teacher) if config.compile else pair.teacher

    @cached_property
    def _procedural(self) -> Tensor:
        """For the pool, and behind them those to be put aside; drawn when they are needed, which takes its time."""
        count = self._share_of(self.plan.pool) + self._share_of(self._aside)
        return dead_leaves(count, self.pair.space).to(self.pair.device)

    def play(self, drawn: Any) -> Play:
        """What was drawn as images, seen by both networks."""
        with self.arithmetic():
            images = self._images(drawn)
        return self.see(images, self.source.labels(drawn))

    def see(self, images: Tensor, labels: Tensor) -> Play:
        """Any images, seen by both networks."""
        with self.arithmetic():
            self.prior.listen()
            for taps in self._inside:
                taps.listen()
            p, q = self._teach(images), self.pair.student(images)
        inside = ([_wide(features) for features in taps.take()] for taps in self._inside)
        return Play(images, labels, _wide(p), _wide(q), self.prior.take(), *inside)

    def look_inside(self) -> None:
        """From now on a play has what blocks of P and of Q give.

        Raises:
            ValueError: no block of the network gives anything that has places in the image.
        """
        found = self.reconstruction or find_blocks(self.pair.teacher, self.pair.space)
        names = modules_of(self.pair.teacher, found.blocks)
        self._inside = tuple(BlockTaps(network, names) for network in (self.pair.teacher, self.pair.student))
        self._inside[0].listen()
        probe(self.pair.teacher, self.pair.space)
        if not self._inside[0].take():
            name, lacking = self.pair.architecture.name, "features of places in an image, which are compared here"
            raise ValueError(f"{name}: none of its blocks gives {lacking}")

    @torch.no_grad()
    def calibrate(self, provisionally: bool = False) -> None:
        """Observe the student's activation ranges on images that the source makes now, or on a few; where its blocks
        are to be reconstructed, on images as they are then."""
        count, batch_size = self.config.calibration, self.config.batch_size
        if provisionally:
            count = min(count, -(-_PROVISIONAL // batch_size))
        made: Iterator[Tensor] = (self.source.images(self.source.sample()) for _ in range(count))
        with ExitStack() as changed:
            if self.reconstruction is not None:
                images = self.pool(_PROVISIONAL) if provisionally else self._renewed_pool()
                changed.enter_context(AlignedMoments(self.pair.teacher, images).of(self.pair.student))
                made = iter(torch.split(images, batch_size))
                count = -(-len(images) // batch_size)
            changed.enter_context(self.arithmetic())
            players.calibrate(self.pair.student, players.progress(made, "observing activation ranges", count))

    @torch.no_grad()
    def pool(self, most: int | None = None) -> Tensor:
        """The plan's images, or so many at most, in random order: procedural ones, which stay, and those that the
        source makes now."""
        count = min(self.plan.pool, most or self.plan.pool)
        procedural = self._procedural[: self._share_of(count)]
        made = self._made(count - len(procedural))
        if self.rehearsal is not None and self._drifts:
            self.rehearsal.put(made)
        return torch.cat([procedural, made])[torch.randperm(count)].contiguous(memory_format=torch.channels_last)

    @property
    def _drifts(self) -> bool:
        """Whether the prior lets images go far from what they were, so that Q forgets these: patches do, BatchNorm's
        statistics do not."""
        return isinstance(self.prior, PatchPrior)

    def _share_of(self, count: int) -> int:
        """How many of so many images are procedural: all, as long as nobody learned to make others."""
        return round(self.plan.leaves * count) if self.plan.warmup else count

    @torch.no_grad()
    def _renewed_pool(self) -> Tensor:
        """The pool anew, and with it the images that tell which Q to keep: by those of the first pool, that would be Q
        as it was before the second."""
        images = self.pool()
        if self.held_out is not None:
            procedural = self._procedural[self._share_of(self.plan.pool) :]
            self.held_out.put_aside(torch.cat([procedural, self._made(self._aside - len(procedural))]))
        return images

    @torch.no_grad()
    def _made(self, count: int) -> Tensor:
        """So many images by the source as it is."""
        made = [self._procedural[:0]]
        while (rest := count - sum(map(len, made))) > 0:
            made.append(self.source.images(self.source.sample())[:rest])
        return torch.cat(made)

    @property
    def watchers(self) -> list[Watcher]:
        """What goes along with a match, for it to go on from a checkpoint."""
        return [watcher for watcher in (self.held_out, self.rehearsal) if watcher is not None]

    @property
    def answers(self) -> tuple[range, ...]:
        """Rounds in which the quantized network answers, a block in each, and nobody else moves: when it comes in, and
        after equal shares of the game, on images that the source makes by then."""
        blocks = len(self.reconstruction.blocks) if self.reconstruction is not None else 0
        share = (self.plan.rounds - self.plan.warmup) // (1 + self.plan.renewals)
        starts = (self.plan.warmup + answer * (blocks + share) for answer in range(1 + self.plan.renewals))
        return tuple(range(start, start + blocks) for start in starts)

    @property
    def answering(self) -> frozenset[int]:
        """All these rounds."""
        return frozenset(chain.from_iterable(self.answers))

    @property
    def rounds(self) -> int:
        """All that there are to play."""
        return self.plan.rounds + len(self.answering)

    def dynamics(self, rule: Dynamics | None = None, guide: BalanceGap | None = None) -> Dynamics:
        """A rule, default the one that is asked for; in the rounds that are for it, the quantized network answers."""
        rule = Graphed(rule) if rule is not None else rule_of(self.config, guide)
        return During(self.answering, Responding(self.reconstruction), rule) if self.reconstruction else rule

    def natural(self, weight: float, classes: bool = True) -> dict[str, Term]:
        """The prior as a term of whoever makes the images; beside that of patches, as PSAQ-ViT has it, that P is to
        take each for its label, unless the player wants that anyway (``classes=False``)."""
        terms: dict[str, Term] = {self.prior.name: lambda play: weight * self.prior.loss(play.seen)}
        if classes and isinstance(self.prior, PatchPrior):
            terms["class"] = lambda play: weight * F.cross_entropy(play.p, play.labels)
        return terms

    def rehearsing(self, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Term]:
        """A loss of logits of P and Q, as a term of Q, on what its blocks were reconstructed on and the generator makes
        no more: procedural images, and its own of then where they drift; nothing where there are none."""
        if self.reconstruction is None or not (self._share_of(self.plan.pool) or self._drifts):
            return {}
        learned = self._procedural[: self._share_of(self.plan.pool)]
        self.rehearsal = Rehearsal(self.pair, learned, self.config.batch_size, self.arithmetic)
        self.rehearsal.put(self._made(self.plan.pool - len(learned) if self._drifts else 0))
        return {"rehearsal": self.rehearsal.term(loss)}

    def generator(self, lr: float, surrogate: Term | None, terms: Mapping[str, Term]) -> Player:
        """The source's module as the player that makes the images, as published (Adam)."""
        adam = Adam(self.source.module.parameters(), lr, betas=(0.5, 0.999), fused=True)
        return Player(
            "generator",
            self.source.module,
            adam,
            "maximize",
            surrogate=surrogate,
            terms=terms,
            sits_out=self.answering,
            growth_limit=100,
        )

    def quantized(
        self, surrogate: Term | None, terms: Mapping[str, Term] | None = None, optimizer: Optimizer | None = None
    ) -> Player:
        """Q as the player that learns on them, as published (SGD with Nesterov momentum, unless there is another
        ``optimizer`` of it; the step size falls along a cosine), when the warm-up is over. Its ranges are observed when
        it comes in, and now, where it is to wait."""
        student, warmup = self.pair.student, self.plan.warmup
        sgd = optimizer or SGD(
            student.parameters(), self.plan.quantized_lr, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
        )
        if warmup:
            self.calibrate(provisionally=True)
        return Player(
            "quantized network",
            student,
            sgd,
            "minimize",
            surrogate=surrogate,
            terms=terms or {},
            schedule=CosineAnnealingLR(sgd, max(1, self.plan.rounds - warmup)),
            sits_out=range(warmup),
            on_entry=self.calibrate,
            growth_limit=10,  # it starts trained
        )

    def arithmetic(self) -> torch.autocast:
        """In which networks compute while they play."""
        return computing_in(self.config.precision, self.pair.device)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
