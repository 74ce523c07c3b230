"""The Balance Gap of AdaSG."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zerosum.criterion import Criterion, Verdict, check_settings
from zerosum.game import Game
from zerosum.player import Side


class BalanceGap(Criterion):
    """What the maximizer gained since the last reading, less what the minimizer took back, on fixed probes.

    With R the mean payoff on the probes, x the maximizer and y the minimizer, x° and y° where they were then:
    ``gain = R(x, y°) - R(x°, y°)``, ``drop = R(x, y°) - R(x, y)``, ``gap = gain - drop = R(x, y) - R(x°, y°)``. Above
    zero the maximizer runs ahead (AdaSG: the quantized network under-fits the samples), below zero the minimizer does
    (it over-fits them). The running mean is over ``window`` gaps, of which those that are still to come count as zero.
    The game is stationary when ``window`` means in a row, the last of a full window, were within ``tolerance`` of zero.

    A gap is of a stretch of ``every`` rounds in which both move. Where one sat out since the last reading (or was left
    out: :meth:`interrupt`), stretch and mean begin anew in the round that is judged. That round's own gap is reported,
    as is the first round's, but is in no mean where a stretch has more rounds.

    After the abstract of AdaSG (AAAI 2023), which names the gap; the formulas are this project's reading of it, the
    paper's full text not being at hand.

    Args:
        probes: samples, as ``game.sample()`` draws them, kept for the whole match; none for a deterministic game.
        every: rounds from one reading to the next.
        tolerance: in units of the payoff; for what it changes by in ``every`` rounds.
        window: gaps in the running mean, and means that have to be within the tolerance.
        ahead: how to say that the maximizer runs ahead, and that the minimizer does. Default: by their names.

    Raises:
        ValueError: ``every`` or ``window`` below 1, or a negative tolerance.
    """

    def __init__(
        self, *probes: Any, every: int = 50, tolerance: float = 1e-3, window: int = 10, ahead: Sequence[str] = ()
    ) -> None:
        check_settings(every, tolerance)
        if window < 1:
            raise ValueError(f"the window is of at least 1 reading; got {window}")
        self.probes, self.every, self.tolerance, self.window = probes or (None,), every, tolerance, window
        self.ahead = ahead
        self._gaps: deque[float] = deque(maxlen=window)
        self._held = 0  # means in a row within the tolerance
        self._start: tuple[int, float, list[Tensor]] | None = None  # of the stretch: round, payoff, minimizer

    @property
    def mean(self) -> float:
        """The running mean."""
        return sum(self._gaps) / self.window

    @property
    def lagging(self) -> Side | None:
        """The side that the other runs ahead of, by the running mean; None where that is within the tolerance."""
        return ("minimize" if self.mean > 0 else "maximize") if abs(self.mean) > self.tolerance else None

    def interrupt(self) -> None:
        """A player is left out of a round: what is read next begins anew."""
        self._start = None

    def before(self, game: Game[Any]) -> None:
        if self._start is None or any(len(game.movers(past)) < 2 for past in range(self._start[0], game.round)):
            self._gaps.clear()
            self._held = 0
            self._start = game.round, self._payoff(game), game.minimizer.values()

    def after(self, game: Game[Any]) -> Verdict:
        assert self._start is not None
        begun, payoff_before, minimizer_before = self._start
        payoff_after, minimizer_after = self._payoff(game), game.minimizer.values()
        game.minimizer.place(minimizer_before)
        payoff_between = self._payoff(game)
        game.minimizer.place(minimizer_after)
        self._start = game.round + 1, payoff_after, minimizer_after
        gain, drop = payoff_between - payoff_before, payoff_between - payoff_after
        if game.round + 1 - begun >= self.every:
            self._gaps.append(gain - drop)
            self._held = self._held + 1 if self.lagging is None else 0
        figures = {"gain": gain, "drop": drop, "balance_gap": gain - drop, "balance_gap_mean": self.mean}
        if self._held >= self.window:
            reason = f"stationary: mean gap within {self.tolerance:g} of zero for {self.window} readings"
        elif self.lagging is None:
            reason = "balanced, not yet for long"
        else:
            one, two = game.maximizer.name, game.minimizer.name
            words = self.ahead or (f"{one} runs ahead of {two}", f"{two} runs ahead of {one}")
            reason = words[self.lagging == "maximize"]
        return Verdict(figures, self._held >= self.window, reason)

    def _payoff(self, game: Game[Any]) -> float:
        if game.payoff is None:
            raise ValueError("the Balance Gap is one of a payoff, and this game has none")
        with game.undisturbed():
            return torch.stack([game.payoff(game.play(probe)) for probe in self.probes]).mean().item()

    def state_dict(self) -> dict[str, Any]:
        """The readings that the running mean and the verdict rest on, and where the stretch began."""
        return {"gaps": list(self._gaps), "held": self._held, "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up readings that :meth:`state_dict` gave."""
        self._gaps, self._held = deque(state["gaps"], maxlen=self.window), state["held"]
        self._start = state["start"]
