"""BatchNorm computed by the layer before it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from zerosum.players.backbones import InputSpace
from zerosum.players.graph import activation_of, traced


def norms_behind_layers(network: nn.Module, space: InputSpace) -> dict[str, str]:
    """By the name of a layer that of the BatchNorm which alone reads what it gives; none where torch.fx cannot tell."""
    graph = traced(network, space)
    if graph is None:
        return {}
    behind = {name: graph.norm_behind(node) for name, node in graph.layers().items()}
    return {name: str(norm.target) for name, norm in behind.items() if norm is not None}


@contextmanager
def folded(network: nn.Module, norms: Mapping[str, str]) -> Iterator[None]:
    """Inside, rounded weights are multiplied, and biases moved, as the BatchNorm behind their layer would do with what
    the layer gives, and that does no more than its activation function: the same values, and the same gradients of all
    parameters, without the passes over the activations. BatchNorm goes by what it remembers, in eval mode, as ever."""
    with _Folding() as folding:
        for name, norm in norms.items():
            folding.fold(network.get_submodule(name), network.get_submodule(norm))
        yield


class _Folding:
    def __enter__(self) -> "_Folding":
        self._undo: list[Any] = []
        return self

    def fold(self, layer: Any, norm: Any) -> None:
        if not parametrize.is_parametrized(layer, "weight"):
            return
        weights, own = layer.parametrizations.weight, layer.bias
        weights.append(_Factor(norm))

        def move(module: nn.Module, args: Any) -> None:
            shift = norm.bias - norm.running_mean * _factor(norm)
            vars(layer)["bias"] = shift if own is None else shift + own * _factor(norm)

        handle = layer.register_forward_pre_hook(move)
        vars(norm)["forward"] = activation_of(norm)

        def undo() -> None:
            del weights[-1], vars(norm)["forward"]
            vars(layer).pop("bias", None)
            handle.remove()

        self._undo.append(undo)

    def __exit__(self, *raised: object) -> None:
        for undo in reversed(self._undo):
            undo()


class _Factor(nn.Module):
    """On a weight, whose first axis is that of what the layer gives."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._norm = (norm,)  # whose parameters are not to be found here

    def forward(self, weight: Tensor) -> Tensor:
        factor = _factor(self._norm[0])
        return weight * factor.view(-1, *[1] * (weight.ndim - 1))


def _factor(norm: Any) -> Tensor:
    factor: Tensor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor
