"""BatchNorm computed by the layer before it, and ReLU by the rounding behind it."""

import math
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from zerosum.players.backbones import InputSpace
from zerosum.players.graph import Traced, activation_of, only_reader, traced
from zerosum.players.quantization.quantizers import ActivationQuantizer

_ENDS = {nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0)}  # between which they leave values as they are


class Behind(NamedTuple):
    """What stands behind a layer, by name: the BatchNorm that alone reads what it gives; and, where that goes through
    nothing but ReLU or ReLU6 to one other layer, the module that applies it, and that layer."""

    norm: str
    activation: str | None = None
    reader: str | None = None


def behind_layers(network: nn.Module, space: InputSpace) -> dict[str, Behind]:
    """By the name of the layer; of those that have a BatchNorm behind them; none, where torch.fx cannot tell."""
    graph = traced(network, space)
    if graph is None:
        return {}
    layers = graph.layers()
    norms = {name: graph.norm_behind(node) for name, node in layers.items()}
    return {name: _behind(graph, norm, layers) for name, norm in norms.items() if norm is not None}


def _behind(graph: Traced, norm: fx.Node, layers: Container[str]) -> Behind:
    activation = norm
    if type(activation_of(graph.of(norm))) is nn.Identity:
        reader = _reader(graph, norm)
        if reader is None or not graph.is_alone(reader):
            return Behind(str(norm.target))
        activation = reader
    layer = _reader(graph, activation)
    if _ends(graph.of(activation)) is None or layer is None or str(layer.target) not in layers:
        return Behind(str(norm.target))
    return Behind(str(norm.target), str(activation.target), str(layer.target))


def _reader(graph: Traced, node: fx.Node) -> fx.Node | None:
    """The one that reads what a node gives, also through modules that do nothing."""
    reader = only_reader(node)
    while reader is not None and isinstance(graph.of(reader), nn.Identity):
        reader = only_reader(reader)
    return reader


def _ends(module: Any) -> tuple[float, float] | None:
    return _ENDS.get(type(module)) or _ENDS.get(type(activation_of(module)))


@contextmanager
def folded(network: nn.Module, behind: Mapping[str, Behind], readers: Container[str] = ()) -> Iterator[None]:
    """Inside, rounded weights are multiplied, and biases moved, as the BatchNorm behind their layer would do with what
    the layer gives; and where one of ``readers`` reads what ReLU gives, the rounding of its input does that too, and
    the scale of that is in the weights before it and behind it. BatchNorm and ReLU do nothing then: the same values,
    and the same gradients of all parameters, in fewer passes over the activations.

    BatchNorm goes by what it remembers, in eval mode, as ever. What modules in between give is not what it was.
    """
    with ExitStack() as all_folded:
        for name, (norm, activation, reader) in behind.items():
            layer = network.get_submodule(name)
            if not parametrize.is_parametrized(layer, "weight"):
                continue
            modules = network.get_submodule(norm), network.get_submodule(activation) if activation else None
            next_layer = network.get_submodule(reader) if reader is not None and reader in readers else None
            all_folded.enter_context(_folded(layer, *modules, next_layer))
        yield


@contextmanager
def _folded(layer: Any, norm: Any, activation: Any, reader: Any) -> Iterator[None]:
    silence, scale = nn.Identity(), 1.0
    instead, ends = {norm: activation_of(norm)}, _ends(activation)
    with ExitStack() as undo:
        if ends is not None and _may_limit(reader):
            scale = undo.enter_context(reader.input_quantizer.in_levels(ends))
            undo.enter_context(_multiplied(reader, lambda: scale))
            instead = {norm: silence, activation: silence}
        undo.enter_context(_multiplied(layer, lambda: _factor(norm, scale)))
        for module, forward in instead.items():
            vars(module)["forward"] = forward
            undo.callback(vars(module).pop, "forward")
        own = layer.bias

        def move(module: nn.Module, args: Any) -> None:
            factor = _factor(norm, scale)
            shift = norm.bias / scale - norm.running_mean * factor
            vars(layer)["bias"] = shift if own is None else shift + own * factor

        undo.callback(layer.register_forward_pre_hook(move).remove)
        undo.callback(vars(layer).pop, "bias", None)
        yield


def _may_limit(reader: Any) -> bool:
    """Whether there is one, whose rounding does as its ``between`` says, and whose weight can be multiplied."""
    inputs = getattr(reader, "input_quantizer", None)
    rounds = isinstance(inputs, ActivationQuantizer) and inputs.may_limit()
    return rounds and parametrize.is_parametrized(reader, "weight")


def _factor(norm: Any, scale: float) -> Tensor:
    """What BatchNorm multiplies channels by, for what comes out in units of ``scale``."""
    factor: Tensor = norm.weight * ((norm.running_var + norm.eps).rsqrt() / scale)
    return factor


@contextmanager
def _multiplied(layer: Any, factor: Callable[[], Tensor | float]) -> Iterator[None]:
    """Inside, the weight of a layer is multiplied by that, which has an element for each output channel, or one."""
    weights = layer.parametrizations.weight
    weights.append(_Factor(factor))
    try:
        yield
    finally:
        del weights[-1]


class _Factor(nn.Module):
    """On a weight, whose first axis is that of what the layer gives."""

    def __init__(self, factor: Callable[[], Tensor | float]) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        factor = self._factor()
        if isinstance(factor, Tensor):
            factor = factor.view(-1, *[1] * (weight.ndim - 1))
        return weight * factor
