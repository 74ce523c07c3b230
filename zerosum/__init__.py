"""Two-player min-max games on PyTorch: players, a payoff, dynamics, criteria, and the match that plays them."""

from zerosum.criteria import BalanceGap, Criterion, Verdict
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
)
from zerosum.game import Game
from zerosum.match import Match, Outcome, Record, Watcher
from zerosum.player import Player, Side, Term
from zerosum.recipe import Options

__all__ = [
    "DYNAMICS",
    "Alternating",
    "BalanceGap",
    "ConsensusOptimization",
    "Criterion",
    "Dynamics",
    "DynamicsName",
    "Evaluation",
    "Extragradient",
    "Field",
    "Game",
    "Lookahead",
    "Match",
    "Optimistic",
    "Options",
    "Outcome",
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
]
