"""The rule by which the players of a scene move."""

from zerosum import Balanced, BalanceGap, Dynamics, Graphed, Simultaneous, make_dynamics
from zerosum.recipes.common.options import DataFreeOptions


def rule_of(config: DataFreeOptions, guide: BalanceGap | None) -> Dynamics:
    """The one that is asked for, as a graph where that can be; ``guide`` is for the balanced one.

    Raises:
        ValueError: rounds are to go to whoever lags, and there is no guide.
    """
    if config.dynamics != "balanced":
        return Graphed(make_dynamics(config.dynamics, config.adjustment))
    if guide is None:
        raise ValueError("--dynamics balanced: no two players contest a payoff here, so that nobody can lag")
    return Balanced(guide, Graphed(Simultaneous()))
