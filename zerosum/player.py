"""A player: parameters, an optimizer, and a side."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from zerosum.magnitude import largest_magnitude
from zerosum.transforms import Remembering, Transform

Side = Literal["maximize", "minimize"]
Term = Callable[[Any], Tensor]
"""A scalar loss of one play: what ``Game.play`` returned."""


@dataclass(eq=False)
class Player:
    """One of the two who play.

    A player lowers its own loss: minus the payoff (``side="maximize"``) or the payoff (``"minimize"``), plus its
    private ``terms``. A game in which nobody brings a surrogate or terms is zero-sum.

    Args:
        name: what displays, journals and errors call it; unique in the game.
        module: owns the parameters; any ``nn.Module``.
        optimizer: any ``torch.optim`` optimizer over (some of) the module's parameters, but LBFGS, which evaluates
            the loss itself; or several, each over its own. The parameters that they hold are those that move.
        side: whether the player raises or lowers the payoff.
        surrogate: a term that takes the place of ±payoff in the player's loss, where the contested payoff itself is
            a poor thing to follow (a GAN's non-saturating loss, AdaSG's band).
        terms: further private terms by name, each already weighted.
        schedule: a learning-rate schedule of an optimizer, or several, stepped once after each round in which the
            optimizers stepped.
        transform: what the optimizers are given in place of the gradients (:mod:`zerosum.transforms`: clipping,
            accumulation); None for no step this time.
        sits_out: rounds, counted from 0, in which the player does not move: ``range(100)`` for the first hundred.
        on_entry: called when the player comes in: before a match, or after rounds that it sat out.
        projection: maps the value of a moving parameter to the nearest allowed one; applied to each after every step
            (:mod:`zerosum.projections` has the simplex, boxes and balls).
        average: an average of the iterates, taken after each round in which the player moved:
            ``AveragedModel(module)`` is uniform, with ``multi_avg_fn=get_ema_multi_avg_fn(0.999)`` exponential. It
            takes no part in the game.
        growth_limit: the player counts as diverged when its largest parameter has grown beyond this factor since the
            match began.

    Attributes:
        step_scale: factor on the step sizes of all the optimizers' groups, whatever a schedule makes of them.
        steps: how often the optimizers have stepped in this process.
        steepest: greatest magnitude in the gradients of the newest step, still on their device; None before any.
        first_largest: of its moving parameters, when the match began.

    Raises:
        ValueError: another side, LBFGS, an optimizer that maximizes or holds nothing of the module that can move, a
            schedule of another optimizer, a module in DistributedDataParallel, or a term by a reserved name.
    """

    name: str
    module: nn.Module
    optimizer: Optimizer | Sequence[Optimizer]
    side: Side
    surrogate: Term | None = None
    terms: Mapping[str, Term] = field(default_factory=dict)
    schedule: LRScheduler | Sequence[LRScheduler] | None = None
    transform: Transform | None = None
    sits_out: Container[int] = ()
    on_entry: Callable[[], None] | None = None
    projection: Callable[[Tensor], Tensor] | None = None
    average: AveragedModel | None = None
    growth_limit: float | None = None
    step_scale: float = field(default=1.0, init=False)
    steps: int = field(default=0, init=False)
    steepest: Tensor | None = field(default=None, init=False)
    first_largest: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.side not in ("maximize", "minimize"):
            raise ValueError(f'player {self.name!r}: side is "maximize" or "minimize", not {self.side!r}')
        if any(isinstance(optimizer, LBFGS) for optimizer in self.optimizers):
            raise ValueError(
                f"player {self.name!r}: LBFGS evaluates the loss itself; take one that steps on a gradient"
            )
        self._check_that_it_moves()
        if reserved := {"payoff", "surrogate"} & set(self.terms):
            raise ValueError(f"player {self.name!r}: a private term may not be called {reserved.pop()!r}")

    def _check_that_it_moves(self) -> None:
        if any(isinstance(module, DistributedDataParallel) for module in self.module.modules()):
            raise ValueError(
                f"player {self.name!r}: gradients are taken without DistributedDataParallel, which would average "
                "nothing; hand in the module inside it"
            )
        own = set(self.module.parameters())
        held = [p for group in self._groups() for p in group["params"]]
        if len(set(held)) < len(held):
            raise ValueError(f"player {self.name!r}: two of its optimizers hold a parameter in common")
        if foreign := sum(p not in own for p in held):
            raise ValueError(
                f"player {self.name!r}: {foreign} of the {len(held)} parameters that its optimizer holds are not its "
                "module's, and would move nothing of it; make the optimizer of module.parameters()"
            )
        if not self.parameters():
            raise ValueError(
                f"player {self.name!r}: no parameter in its optimizer requires a gradient, so it cannot move"
            )
        if any(group.get("maximize") for group in self._groups()):
            raise ValueError(
                f"player {self.name!r}: its optimizer maximizes, and would raise the loss that the player is to lower; "
                "leave maximize out, the side says which way"
            )
        if any(isinstance(schedule, ReduceLROnPlateau) for schedule in self.schedules):
            raise ValueError(f"player {self.name!r}: ReduceLROnPlateau steps on a measurement; take another schedule")
        if any(schedule.optimizer not in self.optimizers for schedule in self.schedules):
            raise ValueError(f"player {self.name!r}: its schedule is another optimizer's")

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """All of them."""
        return (self.optimizer,) if isinstance(self.optimizer, Optimizer) else tuple(self.optimizer)

    @property
    def schedules(self) -> tuple[LRScheduler, ...]:
        """All of them, none where there is none."""
        if self.schedule is None:
            return ()
        return (self.schedule,) if isinstance(self.schedule, LRScheduler) else tuple(self.schedule)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def moves_in(self, round: int) -> bool:
        """Whether the player moves in this round, counted from 0."""
        return round not in self.sits_out

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that move: those of the optimizers' groups that require a gradient."""
        return [p for group in self._groups() for p in group["params"] if p.requires_grad]

    def losses(self, play: Any, payoff: Tensor | None) -> dict[str, Tensor]:
        """The scalars whose sum the player lowers, by name: ``payoff`` (signed) or ``surrogate``, then each term."""
        stake: dict[str, Tensor] = {}
        if self.surrogate is not None:
            stake = {"surrogate": self.surrogate(play)}
        elif payoff is not None:
            stake = {"payoff": payoff if self.side == "minimize" else -payoff}
        return stake | {name: term(play) for name, term in self.terms.items()}

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of the optimizer along ``gradients``, one a parameter of ``parameters()``, and the projection."""
        self._optimize(gradients)
        self.project()

    def update(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """What the optimizer would add to each parameter here. Its state moves on, the parameters stay."""
        start = self.values()
        self._optimize(gradients)
        update = [p.detach() - value for p, value in zip(self.parameters(), start, strict=True)]
        self.place(start)
        return update

    @property
    def step_size(self) -> float:
        """Of the first optimizer's first group, now."""
        return float(self._groups()[0]["lr"]) * self.step_scale

    @property
    def largest(self) -> Tensor:
        """Greatest magnitude in the moving parameters."""
        return largest_magnitude([p.detach() for p in self.parameters()])

    def values(self) -> list[Tensor]:
        """Copies of the moving parameters' values, to return to with :meth:`place`."""
        return [p.detach().clone() for p in self.parameters()]

    @torch.no_grad()
    def place(self, values: Sequence[Tensor]) -> None:
        """Put the moving parameters at ``values``, as they are: nothing is projected."""
        for p, value in zip(self.parameters(), values, strict=True):
            p.copy_(value)

    @torch.no_grad()
    def project(self) -> None:
        """Apply the projection, where there is one."""
        if self.projection is not None:
            for p in self.parameters():
                p.copy_(self.projection(p))

    def _optimize(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of every optimizer; leaves no ``.grad``. Here all gradients pass."""
        if reached := [gradient.detach() for gradient in gradients if gradient is not None]:
            self.steepest = largest_magnitude(reached)
        given = gradients if self.transform is None else self.transform(gradients)
        if given is None:
            return
        for parameter, gradient in zip(self.parameters(), given, strict=True):
            if gradient is not None and gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter).copy_(gradient)  # as fused optimizers want it, on CUDA
            parameter.grad = gradient
        with self._scaled_steps():
            for optimizer in self.optimizers:
                optimizer.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    @contextmanager
    def _scaled_steps(self) -> Iterator[None]:
        # Put back as they were: a schedule may go on from what it finds there.
        groups = self._groups() if self.step_scale != 1 else []
        sizes = [group["lr"] for group in groups]
        for group, size in zip(groups, sizes, strict=True):
            group["lr"] = size * self.step_scale
        try:
            yield
        finally:
            for group, size in zip(groups, sizes, strict=True):
                group["lr"] = size

    def state_dict(self) -> dict[str, Any]:
        """Module, optimizers, schedules, transform, average and step scale, as plain containers of tensors."""
        return {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "transform": self.transform.state_dict() if isinstance(self.transform, Remembering) else {},
            "average": self.average.state_dict() if self.average is not None else None,
            "step_scale": self.step_scale,
            "first_largest": self.first_largest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that :meth:`state_dict` gave."""
        self.module.load_state_dict(state["module"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        for schedule, own in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(own)
        if isinstance(self.transform, Remembering):
            self.transform.load_state_dict(state["transform"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step_scale, self.first_largest = state["step_scale"], state["first_largest"]
