"""Step sizes that need no tuning: each tensor's relative to its own scale, for optimizers of which a step has the step
size's length whatever the gradient's (Adam)."""

import math
from typing import Any

from torch import Tensor, nn

from zerosum.players.quantization.layers import float_weight
from zerosum.players.quantization.learning import rounded_weights
from zerosum.players.quantization.quantizers import Quantizer

_LEVELS = 0.02  # step size of a quantized weight, in levels
_ENOUGH = 100  # values to learn from for each weight of a layer, with which it takes whole steps
_SHARES = {"scale": 2e-3, "upwards": 1e-2}  # step size of what quantizers learn, in shares of its size
_SHARE = 2e-3  # of all other parameters
_SMALLEST = 1e-3  # size of a parameter, or those that begin at zero would stay there


def parameter_groups(module: nn.Module, values: int) -> list[dict[str, Any]]:
    """All parameters of a quantized network or a part of it, each with a step size relative to its own scale, for Adam:
    of quantized weights, a share of a level; of all else, a share of their root mean square.

    Where a layer has many weights and sees little, as the last ones do, they would fit these images and no others. The
    fewer values there are for each of them, the smaller is their step, as a standard error is with its root; what a
    channel has one of, biases and affine parameters, is learned there as everywhere.

    Args:
        values: what the module should give on all images, counted: what is learned from.
    """
    groups = []
    steps: dict[Tensor, float] = {}
    for layer, quantizer in rounded_weights(module):
        weight = float_weight(layer)
        known = min(1.0, math.sqrt(values / weight.numel() / _ENOUGH))
        steps[weight] = known * _LEVELS * quantizer.grid_of(weight).scale.mean().item()
    learned = {
        parameter: _SHARES[name]
        for part in module.modules()
        if isinstance(part, Quantizer)
        for name, parameter in part.named_parameters(recurse=False)
    }
    for parameter in module.parameters():
        share = learned.get(parameter, _SHARE)
        size = parameter.detach().square().mean().sqrt().clamp(min=_SMALLEST).item()
        groups.append({"params": [parameter], "lr": steps.get(parameter, share * size)})
    return groups
