"""Dynamics: the rules by which a round moves the players. Each file has one, its equation and its paper."""

from collections.abc import Callable
from typing import Literal

from zerosum.dynamics.alternating import Alternating
from zerosum.dynamics.balanced import Balanced
from zerosum.dynamics.base import Dynamics, Evaluation, Round, evaluate
from zerosum.dynamics.consensus import ConsensusOptimization
from zerosum.dynamics.during import During
from zerosum.dynamics.extragradient import Extragradient
from zerosum.dynamics.field import Field
from zerosum.dynamics.graphed import Graphed
from zerosum.dynamics.lookahead import Lookahead
from zerosum.dynamics.optimistic import Optimistic
from zerosum.dynamics.responding import Responding
from zerosum.dynamics.simultaneous import Simultaneous
from zerosum.dynamics.symplectic import SymplecticGradientAdjustment

DynamicsName = Literal[
    "simultaneous", "alternating", "extragradient", "optimistic", "lookahead", "consensus", "symplectic"
]
DYNAMICS: dict[DynamicsName, Callable[..., Dynamics]] = {
    "simultaneous": Simultaneous,
    "alternating": Alternating,
    "extragradient": Extragradient,
    "optimistic": Optimistic,
    "lookahead": lambda: Lookahead(Simultaneous()),
    "consensus": ConsensusOptimization,
    "symplectic": SymplecticGradientAdjustment,
}
"""Each of the dynamics, by the name that command lines call it; called without arguments it has its defaults."""


def make_dynamics(name: DynamicsName, adjustment: float = 1.0) -> Dynamics:
    """The dynamics of that name; ``adjustment`` is consensus' γ and symplectic's λ, and nothing to the others."""
    return DYNAMICS[name](adjustment) if name in ("consensus", "symplectic") else DYNAMICS[name]()


# fmt: off
__all__ = [
    "DYNAMICS", "Alternating", "Balanced", "ConsensusOptimization", "During", "Dynamics", "DynamicsName", "Evaluation",
    "Extragradient", "Field", "Graphed", "Lookahead", "Optimistic", "Responding", "Round", "Simultaneous",
    "SymplecticGradientAdjustment", "evaluate", "make_dynamics",
]
# fmt: on
