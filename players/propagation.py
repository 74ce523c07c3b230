"""What enters the layers of a network, without images: what its BatchNorm layers say of what they give.

Nagel et al., ICCV 2019, sections 4.1.3 to 4.2: BatchNorm gives channels of mean β and deviation |γ|, about normal.
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zerosum.players.graph import Traced, activation_of, grouped, is_norm
from zerosum.players.quantization.layers import calibrate, float_weight, weight_quantizer

SAMPLES = 1024
"""Values of each channel: quantiles of its normal distribution, as far as 3.3 deviations from the mean."""
_UNCHANGED: tuple[Any, ...] = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
)
_APPLIED: set[Any] = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Flatten),
    *(F.relu, F.relu6, F.leaky_relu, F.silu, F.gelu, F.hardswish, F.hardtanh, F.sigmoid, torch.relu, torch.sigmoid),
    *(operator.add, operator.iadd, operator.getitem, torch.add, torch.cat, torch.flatten, torch.mean, F.pad),
    *("relu", "relu_", "sigmoid", "add", "add_", "flatten", "mean"),
}


class Entering(fx.Interpreter):
    """What enters each plain layer (:class:`Traced`), as samples of every channel; ``found`` by name after ``run``.

    Behind a BatchNorm they are normal, whatever entered it. Activation functions are applied to them, so behind ReLU
    they are the paper's clipped normal. In additions, they are independent: means and variances are summed. Pooling
    leaves them as they are: right for the mean of an average, too wide for its deviation, too low for a maximum.
    Behind anything else (the network's input, a layer without BatchNorm, products), nothing is known.

    Samples are (:data:`SAMPLES`, channels, 1, …), of as many axes as what they stand for; always the same ones.
    """

    def __init__(self, graph: Traced) -> None:
        super().__init__(graph.module)
        self.traced, self.layers = graph, graph.layers()
        self.found: dict[str, Tensor] = {}
        self._random = torch.Generator().manual_seed(0)

    def run_node(self, n: fx.Node) -> Any:
        found, shape = self._samples(n), n.meta.get("shape", ())
        known = isinstance(found, Tensor) and found.shape == (SAMPLES, *shape[1:2], *[1] * (len(shape) - 2))
        return found if known else None

    def _samples(self, node: fx.Node) -> Any:
        module: Any = self.traced.of(node)
        if is_norm(module):
            return self._normal(module, len(node.meta["shape"]))
        given = [self.env[source] for source in node.all_input_nodes]
        if not given or any(values is None for values in given):
            return None
        if node.target in self.layers:
            self.found[str(node.target)] = given[0]
            return None
        kind: Any = node.target if module is None else type(module)
        return given[0] if kind in _UNCHANGED else super().run_node(node) if kind in _APPLIED else None

    def _normal(self, norm: Any, axes: int) -> Tensor:
        places = torch.rand(SAMPLES, norm.num_features, generator=self._random).argsort(dim=0)
        quantiles = torch.special.ndtri((places.to(norm.weight) + 0.5) / SAMPLES)
        deviation = norm.weight.abs() * (norm.running_var / (norm.running_var + norm.eps)).sqrt()
        values = (norm.bias + deviation * quantiles).view(SAMPLES, -1, *[1] * (axes - 2))
        found: Tensor = activation_of(norm)(values)
        return found


@torch.no_grad()
def entering(graph: Traced) -> dict[str, Tensor]:
    """Samples of what enters each plain layer of which that is known, by name; see :class:`Entering`."""
    interpreter = Entering(graph)
    interpreter.run()
    return interpreter.found


def observe(quantized: nn.Module, samples: Mapping[str, Tensor]) -> None:
    """Lay the grids of what enters these layers over samples of it, by each quantizer's own rule.

    The paper's range is β ± 6γ, cut at 0 behind ReLU.
    """
    for name, values in samples.items():
        inputs = getattr(quantized.get_submodule(name), "input_quantizer", None)
        if inputs is not None:
            calibrate(inputs, [values])


@torch.no_grad()
def correct_biases(quantized: nn.Module, graph: Traced, samples: Mapping[str, Tensor]) -> None:
    """Take the shift of a layer's mean output that rounding caused off its bias or, without one, add it to the running
    mean of the BatchNorm that alone reads the layer; where there is neither, it stays.

    The paper's shift is that of rounded weights, ``ΔW E[x]`` (section 4.2), as if no place were padded. Here rounded
    inputs have their part in it too: ``W_q E[x_q] - W E[x]``.

    Args:
        graph: of the network that ``quantized`` is a copy of.
        samples: of what enters its layers, which :func:`observe` has seen.
    """
    for name, node in graph.layers().items():
        if name not in samples:
            continue
        layer: Any = graph.of(node)
        copied: Any = quantized.get_submodule(name)
        rounds_weight, rounds_input = weight_quantizer(copied), getattr(copied, "input_quantizer", None)
        weight = copied.weight if rounds_weight is None else rounds_weight.rounded(float_weight(copied))
        inputs = samples[name] if rounds_input is None else rounds_input(samples[name])
        shift = _response(weight, layer, inputs) - _response(layer.weight, layer, samples[name])
        norm = graph.norm_behind(node)
        if copied.bias is not None:
            copied.bias.sub_(shift)
        elif norm is not None:
            quantized.get_submodule(str(norm.target)).running_mean.add_(shift)  # type: ignore[operator]


def _response(weight: Tensor, layer: Any, inputs: Tensor) -> Tensor:
    """(output channels,): what such a weight makes of the inputs' mean at every place."""
    kernels = grouped(weight, layer).sum(dim=3)
    return (kernels @ inputs.mean(dim=0).view(len(kernels), -1, 1)).flatten()
