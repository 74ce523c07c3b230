"""A network's forward pass as a graph, for what has to know which layer reads what another one gives."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zerosum.players.backbones import InputSpace
from zerosum.players.lazy import timm
from zerosum.players.probe import evaluating
from zerosum.players.quantization.precision import is_layer

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_IMAGES = 2  # not one, or axes of one element would look like theirs


class Traced:
    """What torch.fx makes of a network in eval mode, whose modules it holds; layers and BatchNorm are one node each.

    Each node has the ``shape`` of what it gives on two images in its ``meta``, where that is one tensor.

    Attributes:
        module: the graph and the network's own modules, by the network's names.

    Raises:
        Exception: whatever stands in the way of tracing, such as a branch that depends on the input.
    """

    def __init__(self, network: nn.Module, space: InputSpace) -> None:
        like = next(network.parameters())
        with evaluating(network), torch.no_grad():
            self.module = fx.GraphModule(network, _Tracer().trace(network))
            images = torch.zeros(_IMAGES, space.channels, *space.size, device=like.device, dtype=like.dtype)
            _Shapes(self.module).run(images)
        self._alone = _alone(self.module)

    def layers(self) -> dict[str, fx.Node]:
        """The calls of plain layers, by name: what is linear in a weight that is read there and nowhere else.

        Conv1d to Conv3d of whatever groups, with channels on axis 1, and Linear layers that are given (N, channels).
        Subclasses that do something to their weight first are none.
        """
        return {str(node.target): node for node in self.module.graph.nodes if self._is_plain(node)}

    def norm_behind(self, node: fx.Node) -> fx.Node | None:
        """The call of a BatchNorm layer (:func:`is_norm`), made once, that alone reads what ``node`` gives."""
        reader = only_reader(node)
        return reader if reader is not None and self.is_alone(reader) and is_norm(self.of(reader)) else None

    def is_alone(self, node: fx.Node) -> bool:
        """Whether a node calls a module that is called once, and whose parameters nobody else reads."""
        return node.op == "call_module" and str(node.target) in self._alone

    def of(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it does."""
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _is_plain(self, node: fx.Node) -> bool:
        layer = self.of(node)
        if type(layer) not in (*_PLAIN, timm.layers.Conv2dSame) or str(node.target) not in self._alone:
            return False
        return not isinstance(layer, nn.Linear) or len(node.meta.get("shape", ())) == 2


def traced(network: nn.Module, space: InputSpace) -> Traced | None:
    """The graph of a network, or None where it cannot be traced."""
    try:
        return Traced(network, space)
    except Exception:
        return None


def only_reader(node: fx.Node) -> fx.Node | None:
    """The one node that reads what a node gives, and that reads nothing else."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].all_input_nodes == [node] else None


def is_norm(module: Any) -> bool:
    """Whether it is a BatchNorm layer with affine parameters and running statistics; timm's have an activation."""
    return type(module) in (*_NORMS, timm.layers.BatchNormAct2d) and module.affine and module.track_running_stats


def activation_of(norm: Any) -> nn.Module:
    """What a BatchNorm layer of timm's applies behind; nothing, of another."""
    return norm.act if isinstance(norm, timm.layers.BatchNormAct2d) else nn.Identity()


def grouped(weight: Tensor, layer: Any) -> Tensor:
    """A view of such a weight of a plain layer: (groups, output channels of each, input channels of each, places)."""
    groups = getattr(layer, "groups", 1)
    return weight.view(groups, len(weight) // groups, weight.shape[1], -1)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m) or isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            n.meta["shape"] = tuple(found.shape)
        return found


def _alone(module: fx.GraphModule) -> set[str]:
    """Modules that are called once and whose parameters nobody else reads, by name."""
    calls = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in module.graph.nodes if node.op == "get_attr"}
    holders = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return {
        name
        for name, times in calls.items()
        if times == 1
        and name not in read
        and all(holders[id(parameter)] == 1 for parameter in module.get_submodule(name).parameters())
    }
