"""Q's best response, found block by block."""

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from zerosum import Diverged, Game, Graphed, Match, Player, Simultaneous
from zerosum.players.blocks import Block, find_blocks
from zerosum.players.folding import behind_layers, folded
from zerosum.players.moments import AlignedMoments
from zerosum.players.quantization.learning import dropping, learning, rounded_weights, settle
from zerosum.players.recording import Inputs, chained_inputs, record_inputs, record_output, rows_of, run_block
from zerosum.randomness import kept_random_state, seed_all
from zerosum.ranks import agreed, share
from zerosum.recipes.common.pair import Pair
from zerosum.recipes.common.step_sizes import parameter_groups

_WIDEST = 32  # images that go through a block at once where nothing is learned
_FREE = 0.2  # share of the steps in which learned roundings need not decide
_FIRST_POWER, _LAST_POWER, _DECISION = 20.0, 2.0, 0.01  # AdaRound's


class Answer(NamedTuple):
    """What came of a block: its error on the pool before its match and after it, as a share of the variance of what the
    full-precision block gives; and whether it was its first answer, its second, …"""

    block: str
    layers: int
    before: float
    after: float
    answer: int


class Play(NamedTuple):
    """What a block gives, and what it should; (images, …) each."""

    found: Tensor
    wanted: Tensor


class Reconstruction:
    """Answers for Q a block a call, from the input to the output, again and again: ``respond(game, player)``.

    Each block of Q is brought close to what the same block of P makes of P's own activations, on a pool of images that
    is drawn anew when the first block is due; what enters it comes from the blocks of Q before, which have answered
    already (BRECQ, Li et al., ICLR 2021). Meanwhile the activations of both are moved and scaled to what BatchNorm
    remembers of them (:class:`zerosum.players.moments.AlignedMoments`). All of a block's parameters move: weights,
    scales of grids that are learned, affine parameters of norms, biases; each with a step size relative to its own
    scale. Weights are rounded straight-through, or as they learn to be (AdaRound). A block that is no better after its
    match is put back.

    Args:
        images: makes the pool, (N, channels, height, width) in normalised input space.
        steps: of each block.
        batch_size: images a step.
        dropped: of the activations that enter a layer, the share that is left in full precision while the block learns,
            drawn anew in each step; of those that enter the block, the share that comes from P (QDrop, Wei et al., ICLR
            2022: a half).
        arithmetic: in which a block computes while it learns; recorded is in float32, and so is error measured.

    Raises:
        ValueError: ``steps`` or ``batch_size`` below 1, or ``dropped`` out of 0 … 1.
    """

    def __init__(
        self,
        pair: Pair,
        images: Callable[[], Tensor],
        steps: int,
        batch_size: int = 16,
        dropped: float = 0.0,
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if min(steps, batch_size) < 1 or not 0 <= dropped <= 1:
            raise ValueError(
                f"{steps} steps of {batch_size} images, {dropped} dropped: expected at least 1 each, and a share"
            )
        self.pair, self.images, self.steps, self.batch_size, self.dropped = pair, images, steps, batch_size, dropped
        self._arithmetic = arithmetic
        self.blocks, self.left_out = find_blocks(pair.teacher, pair.space)
        self._behind = behind_layers(pair.teacher, pair.space)
        self.answers: list[Answer] = []
        self._seed = 0
        self._pass: _Pass | None = None

    def __call__(self, game: Game[Any], player: Player) -> None:
        """The next block answers."""
        place = len(self.answers) % len(self.blocks)
        if place == 0:
            self._seed, self._pass = int(torch.randint(2**62, ())), None
        if self._pass is None:
            with game.undisturbed(), kept_random_state():
                seed_all(self._seed)
                self._pass = _Pass(self.pair, self.blocks, self.images())
        block = self.blocks[place]
        with self._pass.moments.of(self.pair.teacher, self.pair.student):
            self._pass.go_to(place)
            before, after = self._answer(block, self._pass)
        times = 1 + len(self.answers) // len(self.blocks)
        self.answers.append(Answer(block.name, len(block.layers), before, after, times))
        if place == len(self.blocks) - 1:
            self._pass = None
            for optimizer in player.optimizers:
                optimizer.state.clear()  # momentum from where Q was before

    def _answer(self, block: Block, pool: "_Pass") -> tuple[float, float]:
        """A match of the block; its error before and after."""
        student, device = self.pair.student, self.pair.device
        inputs, clean, wanted = pool.inputs, pool.clean, pool.wanted
        module = nn.ModuleList([student.get_submodule(name) for name in block.modules])
        like = next(student.parameters())
        variance = variance_of(wanted)

        def error() -> tuple[float, Tensor]:
            found = record_output(student, block, inputs, like, _WIDEST)
            total = 0.0  # a batch at a time: a recording may be larger than the memory
            for chosen in torch.split(torch.arange(len(wanted)), _WIDEST):
                total += (rows_of(found, chosen, like) - rows_of(wanted, chosen, like)).square().sum().item()
            return total / wanted.numel() / variance, found

        def sample() -> Tensor:
            return torch.randint(len(wanted), (share(self.batch_size),), device=device)

        def play(chosen: Tensor) -> Play:
            given = inputs.of(chosen, like)
            if self.dropped:
                given = given.mixed(clean.of(chosen, like), self.dropped)
            with self._arithmetic():
                found = run_block(student, block, given)
            return Play(found.to(like), rows_of(wanted, chosen, like))

        def error_of(play: Play) -> Tensor:
            # Not mean or mse_loss: their gradients are laid out otherwise than activations, which slows BatchNorm down.
            return (play.found - play.wanted).square().sum() / (play.found.numel() * variance)

        rounders = [quantizer for _, quantizer in rounded_weights(module)]

        def undecided(play: Play) -> Tensor:
            """Of roundings that are learned: what forces a decision, from a fifth of the steps on, and ever harder."""
            passed = (game.round / self.steps - _FREE) / (1 - _FREE)
            power = _FIRST_POWER + (_LAST_POWER - _FIRST_POWER) * passed
            terms = [rounder.rounding.undecided(rounder, power) for rounder in rounders if passed >= 0]
            return _DECISION * sum((term for term in terms if term is not None), play.found.new_zeros(()))

        adam = Adam(parameter_groups(module, wanted.numel()), fused=True)
        answering = Player(
            block.name,
            module,
            adam,
            "minimize",
            surrogate=error_of,
            terms={"undecided": undecided} if any(not rounder.rounding.settles for rounder in rounders) else {},
            schedule=CosineAnnealingLR(adam, self.steps),
        )
        game = Game((answering,), play, sample=sample)
        start, before = answering.values(), error()[0]
        try:
            behind = {name: self._behind[name] for name in block.layers if name in self._behind}
            # Where activations are dropped, they are left as they were before rounding, but behind ReLU.
            folding = folded(student, behind, block.layers if not self.dropped else ())
            with dropping(module, self.dropped), learning(rounders), folding:
                Match(game, Graphed(Simultaneous()), self.steps).play()
            settle(module)
            after, pool.found = error()
        except Diverged:
            after = float("nan")
        if agreed(after < before):
            return before, after
        answering.place(start)
        pool.found = None
        return before, before

    def write(self, path: Path) -> None:
        """All answers as comma-separated values, a line each."""
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(Answer._fields)
            writer.writerows(self.answers)

    def state_dict(self) -> dict[str, Any]:
        """The answers so far, and what the pool is drawn from."""
        return {"answers": [tuple(answer) for answer in self.answers], "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave; the pool, and what goes through it, are made again when needed."""
        self.answers = [Answer(*answer) for answer in state["answers"]]
        self._seed, self._pass = state["seed"], None


class _Pass:
    """A pool of images on its way through P and Q, from block to block: ``inputs`` and ``clean``, what enters the
    block that it has come to, in Q and in P; ``wanted``, what P's block gives, and ``found``, what Q's does, where that
    has been seen since it answered."""

    inputs: Inputs
    clean: Inputs
    wanted: Tensor
    found: Tensor | None = None

    def __init__(self, pair: Pair, blocks: Sequence[Block], images: Tensor) -> None:
        self.pair, self.blocks, self.pool = pair, blocks, images
        self.moments = AlignedMoments(pair.teacher, images)
        self._like = next(pair.student.parameters())
        self._place = -1

    def go_to(self, place: int) -> None:
        """On, to a block; those of Q before it have answered."""
        while self._place < place:
            self._place += 1
            block, pair = self.blocks[self._place], self.pair
            if block.chained:
                before = self.blocks[self._place - 1]
                if self.found is None:
                    self.found = record_output(pair.student, before, self.inputs, self._like, _WIDEST)
                self.inputs, self.clean = chained_inputs(self.found), chained_inputs(self.wanted)
            else:
                self.inputs, self.clean = (
                    record_inputs(network, block, self.pool, _WIDEST) for network in (pair.student, pair.teacher)
                )
            self.wanted = record_output(pair.teacher, block, self.clean, self._like, _WIDEST)
            self.found = None


def variance_of(values: Tensor) -> float:
    """Of all values, a batch at a time; above zero."""
    total = squares = 0.0
    wide = torch.promote_types(values.dtype, torch.float32)
    somewhere = values[:1].to(wide).mean()  # so that little is subtracted from much below
    for rows in torch.split(values, _WIDEST):
        away = rows.to(wide) - somewhere
        total, squares = total + away.sum().item(), squares + away.square().sum().item()
    mean = total / values.numel()
    return max(squares / values.numel() - mean**2, torch.finfo(torch.float32).tiny)
