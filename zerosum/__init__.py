"""Two-player min-max games on PyTorch: players, a payoff, dynamics, criteria, and the match that plays them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zerosum.criteria import (
    AllOf,
    AnyOf,
    BalanceGap,
    Criterion,
    DualityGap,
    Exploitability,
    GradientNorm,
    Patience,
    Verdict,
)
from zerosum.divergence import Diverged
from zerosum.dynamics import (
    DYNAMICS,
    Alternating,
    ConsensusOptimization,
    During,
    Dynamics,
    DynamicsName,
    Evaluation,
    Extragradient,
    Field,
    Lookahead,
    Optimistic,
    Responding,
    Round,
    Simultaneous,
    SymplecticGradientAdjustment,
    evaluate,
    make_dynamics,
)
from zerosum.finite import MixedStrategy, extragradient_step, matrix_game
from zerosum.game import Game
from zerosum.match import Match, Record, Watcher
from zerosum.player import Player, Side, Term
from zerosum.response import BestResponse, Response
from zerosum.transforms import Accumulate, clip_norm

if TYPE_CHECKING:
    from zerosum.recipes.common.from_python import Quantized, quantize

# fmt: off
__all__ = [
    "DYNAMICS", "Accumulate", "AllOf", "Alternating", "AnyOf", "BalanceGap", "BestResponse",
    "ConsensusOptimization", "Criterion", "Diverged", "DualityGap", "During", "Dynamics", "DynamicsName",
    "Evaluation", "Exploitability", "Extragradient", "Field", "Game", "GradientNorm", "Lookahead", "Match",
    "MixedStrategy", "Optimistic", "Patience", "Player", "Quantized", "Record", "Responding", "Response", "Round",
    "Side", "Simultaneous", "SymplecticGradientAdjustment", "Term", "Verdict", "Watcher", "clip_norm", "evaluate",
    "extragradient_step", "load", "make_dynamics", "matrix_game", "quantize",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in ("Quantized", "quantize"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zerosum.recipes.common import from_python  # the engine needs nothing of recipes; this is for who quantizes

    return getattr(from_python, name)


def load(
    folder: str | Path, device: torch.device | str = "cpu", into: nn.Module | None = None, trust: bool = False
) -> nn.Module:
    """The module that a finished run was for, in eval mode: of AdaSG, the quantized network.

    A folder that cannot build it takes ``into``, a network built so, which is copied; or ``trust``, to run its factory.

    Raises:
        FileNotFoundError: no finished run in ``folder``.
        ValueError: the run left no module, or a damaged one, or one that takes ``into`` or ``trust``.
    """
    from zerosum.runs import results  # the engine needs nothing of runs; this is for who has one

    return results.kind_of(path := Path(folder).expanduser()).load(path, device, into, trust)
