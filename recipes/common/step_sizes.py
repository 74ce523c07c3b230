"""Step sizes that need no tuning: each tensor's relative to its own scale, for optimizers of which a step has the step
size's length whatever the gradient's (Adam)."""

from typing import Any

from torch import Tensor, nn

from zerosum.players.quantization.layers import float_weight
from zerosum.players.quantization.learning import rounded_weights
from zerosum.players.quantization.quantizers import Quantizer

_LEVELS = 0.02  # step size of a quantized weight, in levels
_SHARES = {"scale": 2e-3, "upwards": 1e-2}  # step size of what quantizers learn, in shares of its size
_SHARE = 2e-4  # of all other parameters: more of it fits the images, and no others
_SMALLEST = 1e-3  # size of a parameter, or those that begin at zero would stay there


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """All parameters of a quantized network or a part of it, each with a step size relative to its own scale, for Adam:
    of quantized weights, a share of a level; of all else, a share of their root mean square."""
    groups = []
    steps: dict[Tensor, float] = {}
    for layer, quantizer in rounded_weights(module):
        weight = float_weight(layer)
        steps[weight] = _LEVELS * quantizer.grid_of(weight).scale.mean().item()
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
