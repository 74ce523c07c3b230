"""Rounding of what enters additions and averages, so that an integer runtime can compute them too.

Additions (residual connections) and average pooling are function calls, in no module: they are met as they are called.
Which of them are rounded is decided once, when the network is quantized, and kept as a pattern that every call of the
network walks from its start.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zerosum.players.backbones import InputSpace
from zerosum.players.probe import probe
from zerosum.players.quantization.quantizers import ActivationQuantizer
from zerosum.players.quantization.scheme import Scheme

_BITS = 8
_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, operator.add, operator.iadd}
_AVERAGES = {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean}
_OPERANDS = {**dict.fromkeys(_AVERAGES, ("input",)), **dict.fromkeys(_ADDITIONS, ("input", "other"))}

Met: TypeAlias = tuple[Literal["addition", "average"], bool]  # what, and whether it is rounded


def quantize_sums(network: Any, scheme: Scheme, space: InputSpace | None = None) -> None:
    """Let ``network`` round to 8 bits both tensors of each addition of two activations of one shape, and what enters
    average pooling. The quantizers are its ``sum_quantizers``, calibrated with all others.

    A call that meets other additions and averages than a call on two images of zeros did is a RuntimeError.

    Args:
        space: what the network takes; default: what its timm config says.

    Raises:
        ValueError: no ``space``, and no timm config.
    """
    symmetric = scheme.activation_grid == "symmetric"
    pattern: list[Met] = []

    def note(what: Literal["addition", "average"], operands: Sequence[Tensor]) -> Sequence[Tensor]:
        pattern.append((what, operands[0].shape == operands[-1].shape))
        return operands

    with _Sums(note):
        probe(network, space, images=2)  # not one, so that no parameter has the shape of an activation
    count = sum({"addition": 2, "average": 1}[what] for what, rounded in pattern if rounded)
    quantizers = (ActivationQuantizer(_BITS, scheme.activation_range, symmetric) for _ in range(count))
    network.sum_quantizers = nn.ModuleList(quantizers).to(next(network.parameters()).device)
    network.sum_pattern = tuple(pattern)
    network.__class__ = _quantizing_sums(type(network))


def _quantizing_sums(cls: type[nn.Module]) -> type[nn.Module]:
    """The class of networks like ``cls`` whose forward rounds sums, by the pattern and the quantizers of each."""

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        walk = _Walk(self.sum_pattern, self.sum_quantizers)
        with _Sums(walk.step):
            output = cls.forward(self, *args, **kwargs)
        walk.finish()
        return output

    members: dict[str, Any] = {"forward": forward, "__module__": cls.__module__}
    if issubclass(cls, nn.Sequential):  # which runs all that it holds

        def __iter__(self: Any) -> Iterator[nn.Module]:
            return (module for module in cls.__iter__(self) if module is not self.sum_quantizers)

        members["__iter__"] = __iter__
    return type(f"SumQuantized{cls.__name__}", (cls,), members)


class _Walk:
    """One call's way along the pattern; where it leaves it, a RuntimeError."""

    def __init__(self, pattern: Sequence[Met], quantizers: nn.ModuleList) -> None:
        self.pattern, self.quantizers, self.met = pattern, iter(quantizers), 0

    def step(self, what: Literal["addition", "average"], operands: Sequence[Tensor]) -> Sequence[Tensor]:
        expected, rounded = self.pattern[self.met] if self.met < len(self.pattern) else ("end", False)
        if what != expected:
            raise _other_sums(f"number {self.met + 1} is now an {what}", self.pattern)
        self.met += 1
        return [next(self.quantizers)(x) for x in operands] if rounded else operands

    def finish(self) -> None:
        if self.met < len(self.pattern):
            raise _other_sums(f"now there are {self.met}", self.pattern)


def _other_sums(difference: str, pattern: Sequence[Met]) -> RuntimeError:
    return RuntimeError(
        f"quantized sums: the network met other additions and averages than the {len(pattern)} when it was quantized: "
        f"{difference}; a network whose sums depend on its input needs float sums"
    )


class _Sums(TorchFunctionMode):
    """Gives what enters additions and averages of activations to a function, and goes on with what that returns.

    Numbers, integers and tensors of one axis (biases, a counter of batches) are no activations. In a graph, ``x += y``
    leaves what other names know as ``x`` as it is.
    """

    def __init__(self, replace: Callable[[Literal["addition", "average"], Sequence[Tensor]], Sequence[Tensor]]) -> None:
        self.replace = replace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = _OPERANDS.get(func, ())
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        operands: list[Any] = [given.get(name) for name in names]
        if not operands or not all(map(_may_be_activation, operands)):
            return func(*args, **(kwargs or {}))
        what: Literal["addition", "average"] = "addition" if len(names) == 2 else "average"
        given.update(zip(names, self.replace(what, operands), strict=True))
        result = func(*(given.pop(name) for name in names[: len(args)]), *args[len(names) :], **given)
        if func is Tensor.add_ and not operands[0].requires_grad:  # in a graph, quantizers still need what was there
            operands[0].copy_(result)
        return result


def _may_be_activation(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1
