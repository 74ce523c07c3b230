"""The Balance Gap of AdaSG."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from zerosum.criterion import Criterion, Verdict
from zerosum.game import Game


class BalanceGap(Criterion):
    """What the maximizer gained in a round, less what the minimizer took back, on one fixed probe.

    With R the payoff on the probe, x the maximizer and y the minimizer: ``gain = R(x', y) - R(x, y)``,
    ``drop = R(x', y) - R(x', y')``, ``gap = gain - drop``. Above zero the maximizer runs ahead (AdaSG: the quantized
    network under-fits the samples), below zero the minimizer does (it over-fits them). The game is stationary when the
    running mean of the last ``window`` gaps has stayed within ``tolerance`` of zero for ``window`` readings.

    After the abstract of AdaSG (AAAI 2023), which names the gap; the formulas are this project's reading of it, the
    paper's full text not being at hand.

    Args:
        probe: a sample, as ``game.sample()`` draws them, kept for the whole match.
        every: rounds from one reading to the next.
        tolerance: in units of the payoff.
        window: readings in the running mean, and readings for which it has to stay within the tolerance.
        ahead: how to say that the maximizer runs ahead, and that the minimizer does. Default: by their names.

    Raises:
        ValueError: ``every`` or ``window`` below 1, or a negative tolerance.
    """

    def __init__(
        self,
        probe: Any,
        every: int = 50,
        tolerance: float = 1e-3,
        window: int = 10,
        ahead: tuple[str, str] | None = None,
    ) -> None:
        if every < 1 or window < 1 or tolerance < 0:
            raise ValueError(
                f"every and window are at least 1, tolerance at least 0; got {every}, {window}, {tolerance}"
            )
        self.probe = probe
        self.every = every
        self.tolerance = tolerance
        self.window = window
        self.ahead = ahead
        self._gaps: deque[float] = deque(maxlen=window)
        self._means: deque[float] = deque(maxlen=window)

    def before(self, game: Game[Any]) -> None:
        self._payoff_before = self._payoff(game)
        self._minimizer_before = game.minimizer.values()

    def after(self, game: Game[Any]) -> Verdict:
        payoff_after = self._payoff(game)
        minimizer_after = game.minimizer.values()
        game.minimizer.place(self._minimizer_before)
        payoff_between = self._payoff(game)
        game.minimizer.place(minimizer_after)
        maximizer, minimizer = game.maximizer.name, game.minimizer.name
        words = self.ahead or (f"{maximizer} runs ahead of {minimizer}", f"{minimizer} runs ahead of {maximizer}")
        return self._judge(payoff_between - self._payoff_before, payoff_between - payoff_after, words)

    def _payoff(self, game: Game[Any]) -> float:
        with game.undisturbed():
            payoff = game.payoff_of(game.play(self.probe))
        if payoff is None:
            raise ValueError("the Balance Gap is one of a payoff, and this game has none")
        return payoff.item()

    def _judge(self, gain: float, drop: float, ahead: tuple[str, str]) -> Verdict:
        self._gaps.append(gain - drop)
        mean = sum(self._gaps) / len(self._gaps)
        self._means.append(mean)
        settled = len(self._means) == self.window and all(abs(m) <= self.tolerance for m in self._means)
        if settled:
            reason = f"stationary: mean gap within {self.tolerance:g} of zero for {self.window} readings"
        elif mean > self.tolerance:
            reason = ahead[0]
        elif mean < -self.tolerance:
            reason = ahead[1]
        else:
            reason = "balanced, not yet for long"
        figures = {"gain": gain, "drop": drop, "balance_gap": gain - drop, "balance_gap_mean": mean}
        return Verdict(figures, settled, reason)

    def state_dict(self) -> dict[str, Any]:
        """The readings that the running mean and the verdict rest on."""
        return {"gaps": list(self._gaps), "means": list(self._means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up readings that :meth:`state_dict` gave."""
        self._gaps = deque(state["gaps"], maxlen=self.window)
        self._means = deque(state["means"], maxlen=self.window)
