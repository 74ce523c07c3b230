"""Two-player min-max games on PyTorch: players, a payoff, dynamics, criteria, and the match that plays them.

Names are looked up where they are when they are first asked for: PyTorch takes its time, and ``--help`` needs none.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        Balanced,
        ConsensusOptimization,
        During,
        Dynamics,
        DynamicsName,
        Evaluation,
        Extragradient,
        Field,
        Graphed,
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
    from zerosum.recipes.common.from_python import quantize
    from zerosum.recipes.common.quantized import Quantized
    from zerosum.response import BestResponse, Response
    from zerosum.runs.hub import push_to_hub
    from zerosum.runs.results import load
    from zerosum.transforms import Accumulate, clip_norm

    __version__: str

# fmt: off
__all__ = [
    "DYNAMICS", "Accumulate", "AllOf", "Alternating", "AnyOf", "BalanceGap", "Balanced", "BestResponse",
    "ConsensusOptimization", "Criterion", "Diverged", "DualityGap", "During", "Dynamics", "DynamicsName", "Evaluation",
    "Exploitability", "Extragradient", "Field", "Game", "GradientNorm", "Graphed", "Lookahead", "Match",
    "MixedStrategy", "Optimistic", "Patience", "Player", "Quantized", "Record", "Responding", "Response", "Round",
    "Side", "Simultaneous", "SymplecticGradientAdjustment", "Term", "Verdict", "Watcher", "clip_norm", "evaluate",
    "extragradient_step", "load", "make_dynamics", "matrix_game", "push_to_hub", "quantize",
]
# fmt: on


_ENGINE = ("criteria", "divergence", "dynamics", "finite", "game", "match", "player", "response", "transforms")
_ELSEWHERE = {
    "Quantized": "zerosum.recipes.common.from_python",
    "load": "zerosum.runs.results",
    "push_to_hub": "zerosum.runs.hub",
    "quantize": "zerosum.recipes.common.from_python",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("zerosum")
    if name in _ELSEWHERE:  # not the engine's own, which needs none of it
        with import_module("zerosum.runs.extras").explained(f"zerosum.{name}"):
            return getattr(import_module(_ELSEWHERE[name]), name)
    for part in _ENGINE if name in __all__ else ():
        if hasattr(module := import_module(f"zerosum.{part}"), name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]
