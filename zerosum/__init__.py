"""Two-player min-max games on PyTorch: players, a payoff, dynamics, criteria, and the match that plays them."""

from zerosum.criteria import (
    AllOf,
    AnyOf,
    BalanceGap,
    BestResponse,
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
    Dynamics,
    DynamicsName,
    Evaluation,
    Extragradient,
    Field,
    Lookahead,
    Optimistic,
    Round,
    Simultaneous,
    SymplecticGradientAdjustment,
    evaluate,
    make_dynamics,
)
from zerosum.finite import MixedStrategy, extragradient_step, matrix_game
from zerosum.game import Game
from zerosum.match import Contest, Match, Outcome, Record, Watcher
from zerosum.player import Player, Side, Term
from zerosum.recipe import Options
from zerosum.results import load

__all__ = [
    "DYNAMICS",
    "AllOf",
    "Alternating",
    "AnyOf",
    "BalanceGap",
    "BestResponse",
    "ConsensusOptimization",
    "Contest",
    "Criterion",
    "Diverged",
    "DualityGap",
    "Dynamics",
    "DynamicsName",
    "Evaluation",
    "Exploitability",
    "Extragradient",
    "Field",
    "Game",
    "GradientNorm",
    "Lookahead",
    "Match",
    "MixedStrategy",
    "Optimistic",
    "Options",
    "Outcome",
    "Patience",
    "Player",
    "Record",
    "Round",
    "Side",
    "Simultaneous",
    "SymplecticGradientAdjustment",
    "Term",
    "Verdict",
    "Watcher",
    "evaluate",
    "extragradient_step",
    "load",
    "make_dynamics",
    "matrix_game",
]
