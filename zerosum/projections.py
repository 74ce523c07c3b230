"""Where a constrained player may stand: for ``Player.projection``, maps of a parameter to the nearest allowed one."""

from collections.abc import Callable

import torch
from torch import Tensor


def simplex(value: Tensor) -> Tensor:
    """The nearest distribution: entries at least 0 that sum to 1 along the last dimension (Held et al. 1974)."""
    value = value - value.amax(dim=-1, keepdim=True)  # changes nothing but rounding
    sorted_down = value.sort(dim=-1, descending=True).values
    excess = sorted_down.cumsum(dim=-1) - 1
    support = torch.arange(1, value.shape[-1] + 1, device=value.device)
    size = (sorted_down * support > excess).sum(dim=-1, keepdim=True)  # entries that stay above 0, one at least
    threshold = excess.gather(-1, size - 1) / size
    return (value - threshold).clamp(min=0)


def box(low: float | Tensor, high: float | Tensor) -> Callable[[Tensor], Tensor]:
    """Each entry into [low, high].

    Raises:
        ValueError: a ``low`` above its ``high``.
    """
    if (torch.as_tensor(low) > torch.as_tensor(high)).any():
        raise ValueError(f"a box from {low} to {high} is empty")
    return lambda value: torch.minimum(
        torch.maximum(value, torch.as_tensor(low, dtype=value.dtype, device=value.device)),
        torch.as_tensor(high, dtype=value.dtype, device=value.device),
    )


def ball(radius: float, each: bool = False) -> Callable[[Tensor], Tensor]:
    """The Euclidean ball around 0: of the whole parameter, or, with ``each``, of each of its rows (first dimension).

    Raises:
        ValueError: a negative radius.
    """
    if not radius >= 0:
        raise ValueError(f"a ball's radius is at least 0; got {radius}")

    def project(value: Tensor) -> Tensor:
        rows = value.flatten(1) if each else value.reshape(1, -1)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows * torch.where(norms > radius, radius / norms, 1.0)).reshape(value.shape)

    return project
