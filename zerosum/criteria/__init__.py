"""Criteria: is this an equilibrium? Each reports figures, and a verdict with a reason that a person can read."""

from zerosum.criteria.balance_gap import BalanceGap
from zerosum.criteria.combinators import AllOf, AnyOf, Patience
from zerosum.criteria.duality_gap import DualityGap
from zerosum.criteria.exploitability import Exploitability
from zerosum.criteria.gradient_norm import GradientNorm
from zerosum.criterion import Criterion, Verdict

# fmt: off
__all__ = [
    "AllOf", "AnyOf", "BalanceGap", "Criterion", "DualityGap", "Exploitability", "GradientNorm", "Patience",
    "Verdict",
]
# fmt: on
