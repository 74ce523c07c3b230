"""Dynamics: the rules by which a round moves the players. Each file has one, its equation and its paper."""

from collections.abc import Callable
from typing import Literal

from zerosum.dynamics.alternating import Alternating
from zerosum.dynamics.base import Dynamics, Evaluation, Round, evaluate
from zerosum.dynamics.consensus import ConsensusOptimization
from zerosum.dynamics.extragradient import Extragradient
from zerosum.dynamics.field import Field
from zerosum.dynamics.lookahead import Lookahead
from zerosum.dynamics.optimistic import Optimistic
from zerosum.dynamics.simultaneous import Simultaneous
from zerosum.dynamics.symplectic import SymplecticGradientAdjustment

DynamicsName = Literal[
    "simultaneous", "alternating", "extragradient", "optimistic", "lookahead", "consensus", "symplectic"
]
DYNAMICS: dict[DynamicsName, Callable[[], Dynamics]] = {
    "simultaneous": Simultaneous,
    "alternating": Alternating,
    "extragradient": Extragradient,
    "optimistic": Optimistic,
    "lookahead": lambda: Lookahead(Simultaneous()),
    "consensus": ConsensusOptimization,
    "symplectic": SymplecticGradientAdjustment,
}
"""Each of the dynamics with its defaults, by the name that command lines call it."""

__all__ = [
    "DYNAMICS",
    "Alternating",
    "ConsensusOptimization",
    "Dynamics",
    "DynamicsName",
    "Evaluation",
    "Extragradient",
    "Field",
    "Lookahead",
    "Optimistic",
    "Round",
    "Simultaneous",
    "SymplecticGradientAdjustment",
    "evaluate",
]
