"""How a network's input goes through its layers, followed on one forward pass."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from zerosum.players.arguments import input_of
from zerosum.players.backbones import InputSpace, input_space
from zerosum.players.probe import probe

_PRODUCTS = {
    *(F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.tensordot),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm),
}


class Ends(NamedTuple):
    """By name: the layers that the network's own input enters, before any other layer, and the last layer."""

    entered: list[str]
    last: str


def find_ends(network: nn.Module, layers: Mapping[str, nn.Module], space: InputSpace | None = None) -> Ends:
    """What one forward pass tells; where the input is not known, or not followed into any layer, the first layer that
    the network holds, and the last.

    Matrices that the network multiplies with what it computes and that belong to none of the layers are warned of.

    Args:
        space: what the network takes; default: what its timm config says, if there is one.
    """
    names = list(layers)
    try:
        route = _Route(network, layers)
        route.follow(space or input_space(network))
    except Exception:
        if space is not None:
            raise
        return Ends(names[:1], names[-1])
    if route.others:
        warnings.warn(
            f"{', '.join(dict.fromkeys(route.others))}: matrices that the network multiplies with, outside of Conv and "
            "Linear layers; they stay in full precision",
            stacklevel=3,
        )
    return Ends([name for name in names if name in route.entered] or names[:1], route.last or names[-1])


class _Route(TorchFunctionMode):
    """Of each tensor that is computed of the network's input, whether a layer had a part in it; and of each that is
    computed of a matrix outside of the layers alone, that matrix's name."""

    def __init__(self, network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        self.network, self.layers = network, layers
        own = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
        self.behind: Any = WeakTensorKeyDictionary()
        self.matrices: Any = WeakTensorKeyDictionary(
            {p: name for name, p in network.named_parameters() if p.ndim > 1 and id(p) not in own}
        )
        self.entered: set[str] = set()
        self.others: list[str] = []
        self.last: str | None = None

    def follow(self, space: InputSpace) -> None:
        handles = [self.network.register_forward_pre_hook(self._start, with_kwargs=True)]
        for name, layer in self.layers.items():
            handles.append(layer.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            handles.append(layer.register_forward_hook(self._leave))
        try:
            with self:
                probe(self.network, space)
        finally:
            for handle in handles:
                handle.remove()

    def _start(self, network: nn.Module, args: Any, kwargs: Any) -> None:
        self.behind[input_of(network, args, kwargs)] = False

    def _enter(self, name: str) -> Any:
        def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
            self.last = name
            if self.behind.get(input_of(layer, args, kwargs)) is False:
                self.entered.add(name)

        return enter

    def _leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        for tensor in _tensors(output):
            self.behind[tensor] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = list(_tensors((args, list((kwargs or {}).values()))))
        known = [self.behind[tensor] for tensor in given if tensor in self.behind]
        matrices = [self.matrices[tensor] for tensor in given if tensor in self.matrices]
        if known and func in _PRODUCTS:
            self.others += matrices
        written = given[:1] if func is Tensor.__setitem__ else _tensors(result)
        for tensor in written:
            if known:
                self.behind[tensor] = any(known)
            elif matrices:
                self.matrices[tensor] = matrices[0]
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
