"""Two-player min-max games on PyTorch: players, a payoff, dynamics, criteria, and the match that plays them."""

from zerosum.criteria import BalanceGap, Criterion, Verdict
from zerosum.dynamics import Alternating, Dynamics, Round, Simultaneous
from zerosum.game import Game
from zerosum.match import Match, Outcome, Record, Watcher
from zerosum.player import Player, Side, Term
from zerosum.recipe import Options

__all__ = [
    "Alternating",
    "BalanceGap",
    "Criterion",
    "Dynamics",
    "Game",
    "Match",
    "Options",
    "Outcome",
    "Player",
    "Record",
    "Round",
    "Side",
    "Simultaneous",
    "Term",
    "Verdict",
    "Watcher",
]
