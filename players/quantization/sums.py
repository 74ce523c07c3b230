"""Rounding of what enters additions and averages, so that an integer runtime can compute them too.

Additions (residual connections) and average pooling are function calls, in no module: they are met as they are called,
and numbered in that order.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from players.quantization.quantizers import ActivationQuantizer, Scheme

_BITS = 8
_ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, operator.add, operator.iadd}
_AVERAGES = {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean}


def quantize_sums(network: nn.Module, scheme: Scheme) -> None:
    """Let ``network`` round to 8 bits both tensors of each addition of two activations of one shape, and what enters
    average pooling. The quantizers are its ``sum_quantizers``, calibrated with all others.

    Raises:
        ValueError: the network does not say what input it takes (timm's ``default_cfg``).
    """
    symmetric = scheme.activation_grid == "symmetric"
    count = 0

    def note(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return x

    device = next(network.parameters()).device
    with torch.no_grad(), _Sums(note):
        # Two images, so that no parameter has the shape of an activation.
        network(torch.zeros(2, *resolve_model_data_config(network)["input_size"], device=device))
    quantizers = (ActivationQuantizer(_BITS, scheme.activation_range, symmetric) for _ in range(count))
    network.sum_quantizers = nn.ModuleList(quantizers).to(device)
    network.register_forward_pre_hook(_enter)
    network.register_forward_hook(_leave, always_call=True)


class _Sums(TorchFunctionMode):
    """Gives what enters additions and averages to a function, and goes on with what that returns."""

    def __init__(self, replace: Callable[[Tensor], Tensor]) -> None:
        self.replace = replace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _AVERAGES and _are_activations(args[0], args[0]):
            args = (self.replace(args[0]), *args[1:])
        elif func in _ADDITIONS and _are_activations(*args[:2]):
            args = (self.replace(args[0]), self.replace(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _are_activations(left: Any, right: Any) -> bool:
    return (
        isinstance(left, Tensor)
        and isinstance(right, Tensor)
        and left.is_floating_point()
        and left.ndim > 1
        and left.shape == right.shape
    )


def _enter(network: Any, args: Any) -> None:
    quantizers = iter(network.sum_quantizers)
    network.summing = _Sums(lambda x: next(quantizers)(x))
    network.summing.__enter__()


def _leave(network: Any, args: Any, output: Any) -> None:
    network.summing.__exit__(None, None, None)
    del network.summing
