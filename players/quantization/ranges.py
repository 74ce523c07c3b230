"""Where a grid lies: estimators of the range that it should cover, and what the names of ranges stand for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from zerosum.players.quantization.grids import Grid
from zerosum.players.quantization.rounding import LearnedRounding, LearnedScale, Nearest, Rounding

WeightRange = Literal["auto", "minmax", "pairwise", "percentile", "mse", "lsq", "adaround"]
ActivationRange = Literal["auto", "minmax", "ema", "percentile", "mse", "lsq"]

_PERCENTILE = 99.9
_SHARES = torch.linspace(1, 0.2, 41).tolist()
_BOTH_ENDS = [(share, share) for share in _SHARES]
_EITHER_END = _BOTH_ENDS + [(1.0, share) for share in _SHARES] + [(share, 1.0) for share in _SHARES]
_SAMPLES = 2**14
_MANY, _OF_MANY = 2**20, 2**10
_AT_ONCE = 2**17  # values rounded together, which a core's cache holds
_MOMENTUM = 0.9
_FEW_BITS = 4  # up to which the scale of the range ``auto`` is learned


def minmax(x: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each row."""
    return x.amin(dim=1), x.amax(dim=1)  # on the CPU faster than aminmax, which is not vectorised


def pairwise(x: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Minmax of a symmetric grid, widened so that the levels of neighbours in a row add up to at most 128.

    Kernels for x86 CPUs without VNNI instructions multiply unsigned activations by neighbouring weights and add the two
    products in 16 bits: 255 · 128 is the most that fits there. Grids of 7 bits and fewer are not widened.
    """
    low, high = minmax(x, bits, symmetric)
    if bits < 8 or x.shape[1] == 1:
        return low, high
    neighbours = (x[:, :-1] + x[:, 1:]).abs().amax(dim=1)  # each of them may be rounded up: 127 + 1
    return low, torch.maximum(high, neighbours)


def percentile(x: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The central 99.9 % of each row: what is left when 0.05 % are cut off at either end, linearly interpolated."""
    ordered = x.sort(dim=1).values
    position = (x.shape[1] - 1) * (1 - _PERCENTILE / 100) / 2
    below, share = int(position), position % 1
    above = min(below + 1, x.shape[1] - 1)
    low = torch.lerp(ordered[:, below], ordered[:, above], share)
    high = torch.lerp(ordered[:, -1 - below], ordered[:, -1 - above], share)
    return low, high


def mse(x: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Each row's minmax range, cut at one end or at both to a share of 1 down to 0.2, for the least squared error; of
    more than a million values, as 1,024 of each row have it."""
    low, high = minmax(x, bits, symmetric)
    if x.numel() > _MANY and x.shape[1] > _OF_MANY:
        x = x[:, torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(0))[:_OF_MANY].to(x.device)]
    shares = torch.tensor(_BOTH_ENDS if symmetric else _EITHER_END, device=x.device)
    lows, highs = (shares[:, end, None] * value.float() for end, value in enumerate((low, high)))  # (cuts, rows)
    grid, errors = Grid.over(lows, highs, bits, symmetric), []
    for scale, zero_point in zip(*(torch.split(each, max(1, _AT_ONCE // x.numel())) for each in grid[:2]), strict=True):
        scale, zero_point = scale[:, :, None], zero_point[:, :, None]
        levels = (x.float() * scale.reciprocal()).round_().clamp_(-zero_point, 2**bits - 1 - zero_point)
        errors.append(levels.mul_(scale).sub_(x).square_().sum(dim=2))
    best = torch.cat(errors).argmin(dim=0, keepdim=True)
    return lows.gather(0, best)[0].to(x.dtype), highs.gather(0, best)[0].to(x.dtype)


def sample(x: Tensor) -> Tensor:
    """(1, n) values that stand for all of ``x`` where a range is looked for: all, or some 16,384 and the outermost."""
    values = x.reshape(1, -1)
    if values.shape[1] <= _SAMPLES:
        return values
    chosen = torch.randint(values.shape[1], (_SAMPLES,), generator=torch.Generator().manual_seed(0))
    return torch.cat([values[:, chosen.to(x.device)], torch.stack(values.aminmax()).reshape(1, 2)], dim=1)


def widest(kept: Tensor, found: Tensor, seen: int, outermost: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Let an end of a range be the outermost of all batches, the newest of ``seen`` included."""
    kept.lerp_(outermost(found, kept) if seen > 1 else found, 1)


def average(kept: Tensor, found: Tensor, seen: int, outermost: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Let an end of a range be a moving average over batches, corrected for its start: (1 - m) / (1 - m^t) is the
    newest one's share, 1 for the first."""
    kept.lerp_(found, (1 - _MOMENTUM) / (1 - _MOMENTUM**seen))


@dataclass(frozen=True)
class Range:
    """Where a grid lies.

    Args:
        find: the range (low, high), each (rows,), of every row of (rows, values) for a grid of so many bits, symmetric
            or not. Of a weight, input channels are innermost.
        follows: a weight's range is found anew as the weight changes, not kept from the start.
        batches: what becomes of an end of an activation's range as batches are observed.
        whole: all of a batch is looked at, not a sample.
    """

    find: Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]
    follows: bool = False
    batches: Callable[[Tensor, Tensor, int, Callable[[Tensor, Tensor], Tensor]], None] = average
    whole: bool = False

    def observe(self, x: Tensor, low: Tensor, high: Tensor, seen: int, bits: int, symmetric: bool) -> None:
        """Take a batch of activations, the newest of ``seen``, into the range ``low`` … ``high``, in place."""
        found_low, found_high = self.find(x.reshape(1, -1) if self.whole else sample(x), bits, symmetric)
        self.batches(low, found_low.to(low.dtype), seen, torch.minimum)
        self.batches(high, found_high.to(high.dtype), seen, torch.maximum)


WAYS: dict[str, tuple[Callable[[], Range], Callable[[], Rounding]]] = {
    "minmax": (partial(Range, minmax, follows=True, batches=widest, whole=True), Nearest),
    "pairwise": (partial(Range, pairwise, follows=True), Nearest),
    "ema": (partial(Range, minmax, whole=True), Nearest),
    "percentile": (partial(Range, percentile), Nearest),
    "mse": (partial(Range, mse), Nearest),
    "lsq": (partial(Range, mse), LearnedScale),
    "adaround": (partial(Range, mse), LearnedRounding),
}
"""What the names of ranges stand for: where a grid lies, and how values come to its levels."""


def way_of(name: WeightRange | ActivationRange, bits: int) -> tuple[Range, Rounding]:
    """What is in :data:`WAYS` under a name, made anew; ``auto`` is ``lsq`` of few bits, and ``mse`` of more."""
    make_range, make_rounding = WAYS[("lsq" if bits <= _FEW_BITS else "mse") if name == "auto" else name]
    return make_range(), make_rounding()
