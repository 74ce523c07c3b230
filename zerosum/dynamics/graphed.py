"""Rounds recorded as CUDA graphs."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from zerosum import ranks
from zerosum.dynamics.base import Dynamics, Round
from zerosum.game import Game
from zerosum.player import Player
from zerosum.randomness import random_state
from zerosum.transforms import Remembering


class Graphed(Dynamics):
    """On CUDA, ``inner`` recorded as a graph in the third round of the same players, and played again from there on.

    A round of small networks is a thousand kernels, which take the host far longer to launch than the device to
    compute; a graph is launched at once. It computes the same: parameters, buffers, optimizers' state and the device's
    random numbers go on, and so do step sizes and schedules.

    What Python does in a round it does while that is recorded, and then no more: the game's ``sample``, ``play``,
    payoff and terms may not go by what they count themselves, nor read tensors that others put in the place of those
    recorded. The rounds of a match in between that other rules play may do so: all is recorded anew after them, when a
    player comes in, and when the match is put back.

    Rounds are played as they are, if slower, where a graph would not be the same or cannot be had: on CPUs, of several
    ranks, where the rule or a transform has a memory, where an optimizer is not ``fused``, and where a round asks for
    ``game.round``, waits for the device or draws random numbers on the host.

    Args:
        inner: any other dynamics.

    Attributes:
        reasons: why the rounds of these players, by their names, are not recorded.
    """

    def __init__(self, inner: Dynamics) -> None:
        self.inner = inner
        self.reasons: dict[tuple[str, ...], str] = {}
        self._forget()

    def _forget(self) -> None:
        self._played: Counter[tuple[str, ...]] = Counter()
        self._recordings: dict[tuple[str, ...], _Recording] = {}
        self._game: Game[Any] | None = None
        self._round = 0

    def step(self, game: Game[Any], movers: Sequence[Player]) -> Round:
        names = tuple(player.name for player in movers)
        goes_on = game is self._game and 0 <= game.round - self._round <= 1
        if not goes_on or not all(kept.holds(game) for kept in self._recordings.values()):
            self._forget()
        self._game, self._round = game, game.round
        if names in self._recordings:
            return self._recordings[names].play()
        if reason := self.reasons.get(names) or _reason_against(self.inner, movers):
            self.reasons[names] = reason
            return self.inner.step(game, movers)
        self._played[names] += 1
        if self._played[names] > 2:
            return self._record(game, movers, names)
        found: list[str] = []
        game.round_was_asked = False
        with _StepSizes(movers).on_device(), _watching_the_host(found):
            result = self.inner.step(game, movers)
        if game.round_was_asked:
            found.append("it goes by the number of the round")
        if self._played[names] == 2 and found:  # in the first, much is done once
            self.reasons[names] = found[0]
        return result

    def _record(self, game: Game[Any], movers: Sequence[Player], names: tuple[str, ...]) -> Round:
        try:
            recording = self._recordings[names] = _Recording(self.inner, game, movers)
        except RuntimeError as error:  # something that nobody saw coming; or one that comes again now
            self.reasons[names] = str(error).partition("\n")[0]
            return self.inner.step(game, movers)
        return recording.play()

    def on_entry(self, player: Player) -> None:
        self._forget()
        self.inner.on_entry(player)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self.inner.load_state_dict(state)


class _StepSizes:
    """Those of the movers' optimizers, as tensors on the device, which a graph reads anew each time."""

    def __init__(self, movers: Sequence[Player]) -> None:
        self._groups = [group for player in movers for o in player.optimizers for group in o.param_groups]
        self.device = movers[0].parameters()[0].device
        self._newest: list[float] = []
        self._tensor = torch.empty(len(self._groups), device=self.device)
        self.refresh()

    def refresh(self) -> None:
        """Those that the groups have now."""
        sizes = [float(group["lr"]) for group in self._groups]
        if sizes != self._newest:
            self._newest = sizes
            self._tensor.copy_(torch.tensor(sizes).pin_memory(), non_blocking=True)

    @contextmanager
    def on_device(self, recording: bool = False) -> Iterator[None]:
        """Inside, optimizers step by the tensors."""
        kept = [dict(group) for group in self._groups]
        for group, size in zip(self._groups, self._tensor, strict=True):
            group["lr"] = size
            if "capturable" in group:
                group["capturable"] = recording or group["capturable"]
        try:
            yield
        finally:
            for group, before in zip(self._groups, kept, strict=True):
                group.update({name: before[name] for name in ("lr", "capturable") if name in before})


class _Recording:
    """One round, recorded; not yet played."""

    def __init__(self, inner: Dynamics, game: Game[Any], movers: Sequence[Player]) -> None:
        self._movers, self._sizes, self._graph = movers, _StepSizes(movers), torch.cuda.CUDAGraph()
        before = [player.steps for player in movers]
        # Other threads, such as one that pins memory, may go on meanwhile.
        graph = torch.cuda.graph(self._graph, capture_error_mode="thread_local")
        try:
            with self._sizes.on_device(recording=True), _left_as_it_was(self._sizes.device), graph:
                self._result = inner.step(game, movers)
        finally:
            self._steps = [player.steps - steps for player, steps in zip(movers, before, strict=True)]
            for player, steps in zip(movers, before, strict=True):
                player.steps = steps
        self._steepest = [player.steepest for player in movers]
        self._scales = _step_scales(game)
        self._read = list(_read_by(game))

    def holds(self, game: Game[Any]) -> bool:
        """Whether all that the round reads of the players still stands where it stood."""
        unmoved = all(place.get(name) is value for place, name, value in self._read)
        return unmoved and self._scales == _step_scales(game)

    def play(self) -> Round:
        """It, with the step sizes of now."""
        self._sizes.refresh()
        self._graph.replay()
        for player, steps, steepest in zip(self._movers, self._steps, self._steepest, strict=True):
            player.steps += steps
            player.steepest = steepest
        payoff = None if self._result.payoff is None else self._result.payoff.clone()
        losses = {
            player: {name: value.clone() for name, value in terms.items()}
            for player, terms in self._result.losses.items()
        }
        return Round(payoff, losses)


@contextmanager
def _left_as_it_was(device: torch.device) -> Iterator[None]:
    """Stream and random numbers, where a recording fails inside: PyTorch then leaves both as while it records."""
    with torch.cuda.stream(torch.cuda.current_stream(device)):
        try:
            yield
        except BaseException:
            generator = torch.cuda.default_generators[device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise


def _step_scales(game: Game[Any]) -> list[float]:
    return [player.step_scale for player in game.players]


def _read_by(game: Game[Any]) -> Iterator[tuple[Mapping[Any, Any], Any, Any]]:
    """Places of the players' tensors, and of what the host decides by, with what is there now."""
    for player in game.players:
        for module in player.module.modules():
            yield vars(module), "training", module.training
            for place in (module._parameters, module._buffers):
                yield from ((place, name, value) for name, value in place.items())
        for optimizer in player.optimizers:
            yield from ((vars(optimizer), name, getattr(optimizer, name)) for name in ("param_groups", "state"))
            for group in optimizer.param_groups:
                yield from ((group, name, value) for name, value in group.items() if name != "lr")
            for parameter, state in optimizer.state.items():
                yield optimizer.state, parameter, state
                yield from ((state, name, value) for name, value in state.items())


def _reason_against(inner: Dynamics, movers: Sequence[Player]) -> str | None:
    """Why rounds of theirs by this rule cannot be recorded."""
    if any(p.device.type != "cuda" for player in movers for p in player.parameters()):
        return "they are not on a CUDA device"
    if ranks.count() > 1:
        return "there are several ranks"
    if inner.state_dict():
        return f"{type(inner).__name__} has a memory"
    for player in movers:
        if isinstance(player.transform, Remembering):
            return f"the transform of {player.name!r} has a memory"
        if not all(group.get("fused") for optimizer in player.optimizers for group in optimizer.param_groups):
            return f"an optimizer of {player.name!r} is not fused"
    return None


@contextmanager
def _watching_the_host(found: list[str]) -> Iterator[None]:
    """Notes what is done inside that a graph cannot do again."""
    before, mode = _drawn_on_the_host(), torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode(max(mode, 1))
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    waits = [warning for warning in caught if "synchroniz" in str(warning.message).lower()]
    if waits:
        found.append("a round waits for the device")
    if _drawn_on_the_host() != before:
        found.append("a round draws random numbers on the host")
    for warning in caught:
        if warning not in waits:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _drawn_on_the_host() -> tuple[bytes, str]:
    state = random_state()
    return state["torch"].numpy().tobytes(), repr((state["numpy"], state["python"]))
