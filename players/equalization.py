"""Weights whose channels reach equally far, in a network that computes what it did: cross-layer equalization.

Nagel et al., ICCV 2019, section 4.1. One grid for all of a weight, or for all activations, is as coarse as the channel
that reaches farthest makes it. A positive factor on a channel goes through an activation function f with f(s x) =
s f(x), and so may be moved from one layer to the next.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zerosum.players.backbones import InputSpace
from zerosum.players.graph import Traced, activation_of, grouped, only_reader, traced
from zerosum.players.quantization.attention import separated

_HOMOGENEOUS: tuple[Any, ...] = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d),
)
_FUNCTIONS: set[Any] = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.leaky_relu, "relu", "relu_"),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.flatten, "flatten"),
}
_ALIVE = 1e-3  # of the layer's farthest channel; what reaches less far stays, or its bias would become enormous
_SETTLED, _MOST = 1e-3, 200


class Link(NamedTuple):
    """Two layers, and the BatchNorm behind the first; what else is between them commutes with positive factors."""

    first: Any
    norm: Any
    second: Any

    def ranges(self) -> tuple[Tensor, Tensor]:
        """(channels,) each: the largest magnitude in each output channel of the first layer, its BatchNorm folded in,
        and in each input channel of the second."""
        first = _rows(self.first)
        if self.norm is not None:
            first = first * (self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()).abs()
        return first, grouped(self.second.weight, self.second).abs().amax(dim=(1, 3)).flatten()

    def equalize(self) -> float:
        """Make the two ranges equal in each channel; how much that changed, as the largest logarithm of a factor."""
        first, second = self.ranges()
        factors = torch.where(_alive(first) & _alive(second), (first / second).sqrt(), 1.0)
        holder = self.first if self.norm is None else self.norm
        holder.weight.div_(_along(factors, holder.weight))
        if holder.bias is not None:
            holder.bias.div_(factors)
        kernels = grouped(self.second.weight, self.second)
        kernels.mul_(factors.view(len(kernels), 1, -1, 1))
        return factors.log().abs().max().item()


@torch.no_grad()
def equalized(network: nn.Module, space: InputSpace) -> nn.Module:
    """A copy of a network that computes the same, up to rounding, with channels that reach equally far.

    Of two plain layers (:class:`~zerosum.players.graph.Traced`), the second reading all that the first gives and nobody
    else any of it, with a BatchNorm behind the first or none, and between them only ReLU, LeakyReLU, PReLU, pooling or
    nothing: each channel's factor is ``s = sqrt(r1 / r2)`` (equation 11), of :meth:`Link.ranges`; BatchNorm's affine
    parameters, or the first layer's weight and bias, are divided by it, the second's input channel is multiplied.
    Depthwise layers between two are the second of one pair and the first of the next. All pairs in turn, until nothing
    changes. ReLU6, SiLU, … are left alone (the paper puts ReLU in the place of ReLU6).

    Beyond the paper, which folds BatchNorm away: rows of a layer that a BatchNorm reads alone are made to reach equally
    far, for the BatchNorm takes any factor up; its statistics stay those of what enters.

    Channels that reach less than a thousandth of the farthest are left alone. A network that torch.fx cannot trace is
    only copied.
    """
    network = copy.deepcopy(separated(network))
    graph = traced(network, space)
    if graph is None:
        return network
    links, normed = list(links_of(graph)), list(_normed(graph))
    for _ in range(_MOST):
        changes = [_even_rows(*pair) for pair in normed] + [link.equalize() for link in links]
        if max(changes, default=0.0) < _SETTLED:
            break
    return network


def links_of(graph: Traced) -> Iterator[Link]:
    """The pairs that can be equalized."""
    layers = graph.layers()
    for node in layers.values():
        norm = graph.norm_behind(node)
        if norm is not None and not _commutes(activation_of(graph.of(norm))):
            continue
        here = only_reader(norm or node)
        while here is not None and here not in layers.values() and _is_homogeneous(graph, here, node.meta["shape"][1]):
            here = only_reader(here)
        if here is not None and here in layers.values():
            yield Link(graph.of(node), None if norm is None else graph.of(norm), graph.of(here))


def _normed(graph: Traced) -> Iterator[tuple[Any, Any]]:
    """Layers that a BatchNorm reads alone, each with it."""
    for node in graph.layers().values():
        if (norm := graph.norm_behind(node)) is not None:
            yield graph.of(node), graph.of(norm)


def _is_homogeneous(graph: Traced, node: fx.Node, channels: int) -> bool:
    """Whether what a node calls keeps so many channels apart on axis 1, and commutes with positive factors on them."""
    module = graph.of(node)
    commutes = node.target in _FUNCTIONS if module is None else _commutes(module)
    return commutes and node.meta.get("shape", ())[1:2] == (channels,)


def _commutes(function: Any) -> bool:
    return type(function) in _HOMOGENEOUS


def _even_rows(layer: Any, norm: Any) -> float:
    reach = _rows(layer)
    factors = torch.where(_alive(reach), reach.max() / reach, 1.0)
    before = (norm.running_var + norm.eps).sqrt()
    layer.weight.mul_(_along(factors, layer.weight))
    if layer.bias is not None:
        layer.bias.mul_(factors)
    norm.running_mean.mul_(factors)
    norm.running_var.mul_(factors.square())
    norm.weight.mul_((norm.running_var + norm.eps).sqrt() / (factors * before))
    return factors.log().abs().max().item()


def _rows(layer: Any) -> Tensor:
    return layer.weight.flatten(1).abs().amax(dim=1)


def _alive(reach: Tensor) -> Tensor:
    return reach > _ALIVE * reach.max()


def _along(factors: Tensor, weight: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (weight.ndim - 1))
