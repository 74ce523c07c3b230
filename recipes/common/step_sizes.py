"""Step sizes that need no tuning: each tensor's relative to its own scale, for optimizers of which a step has the step
size's length whatever the gradient's (Adam)."""

import math
from typing import Any

from torch import nn

from zerosum.players.quantization.layers import float_weight
from zerosum.players.quantization.learning import rounded_weights
from zerosum.players.quantization.quantizers import Quantizer

_LEVELS = 0.02  # step size of a quantized weight, in levels
_ENOUGH = 100  # values to learn from for each weight of a layer, with which it takes whole steps
_SHARES = {"scale": 2e-3, "upwards": 1e-2}  # step size of what quantizers learn, in shares of its size
_SHARE = 2e-4  # of all other parameters
_MOST = 10  # times that where weights, of which too little is seen, leave the more to them
_SMALLEST = 1e-3  # size of a parameter, or those that begin at zero would stay there


def parameter_groups(module: nn.Module, values: int) -> list[dict[str, Any]]:
    """All parameters of a quantized network or a part of it, each with a step size relative to its own scale, for Adam:
    of quantized weights, a share of a level; of all else, a share of their root mean square.

    Where a layer has many weights and sees little, as the last ones do, they would fit these images and no others. The
    fewer values there are for each of them, the smaller is their step, as a standard error is with its root; and the
    larger that of what a channel has one of, biases and affine parameters, which learn in their place.

    Args:
        values: what the module should give on all images, counted: what is learned from.
    """
    rounded = [(float_weight(layer), quantizer) for layer, quantizer in rounded_weights(module)]
    seen = {weight: min(1.0, values / weight.numel() / _ENOUGH) for weight, _ in rounded}
    steps = {
        weight: math.sqrt(seen[weight]) * _LEVELS * quantizer.grid_of(weight).scale.mean().item()
        for weight, quantizer in rounded
    }
    rest = _SHARE * min(_MOST, 1 / min(seen.values(), default=1.0))
    learned = {
        parameter: _SHARES[name]
        for part in module.modules()
        if isinstance(part, Quantizer)
        for name, parameter in part.named_parameters(recurse=False)
    }
    groups = []
    for parameter in module.parameters():
        share = learned.get(parameter, rest)
        size = parameter.detach().square().mean().sqrt().clamp(min=_SMALLEST).item()
        groups.append({"params": [parameter], "lr": steps.get(parameter, share * size)})
    return groups
