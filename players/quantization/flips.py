"""A step that turns over a given share of a quantized weight, however small its gradient is."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from zerosum.players.quantization.layers import float_weight
from zerosum.players.quantization.learning import rounded_weights
from zerosum.players.quantization.quantizers import WeightQuantizer

_HALVINGS = 5


class FlipFraction(SGD):
    """SGD with Nesterov momentum whose step, of each rounded weight, is ``a >= 1`` times as long: such that at least a
    share of its values come to another level (AIT, Choi et al., CVPR 2022).

    Where the plain step does that, ``a`` is 1; else it is doubled until the share is reached, and narrowed down to a
    32nd. Where it is not reached before one of the values has gone as far as the grid is wide, the step is the plain
    one. So is that of all other parameters: biases, those of norms, learned scales.

    The share falls with the step size, as both do in the published code. Of SGD's state nothing differs.

    Args:
        network: a network with rounded weights; all of its parameters move.
        share: of each weight's values, 0 to 1, at the step size ``lr``.
        momentum: above 0.
    """

    def __init__(self, network: nn.Module, lr: float, share: float, momentum: float = 0.9) -> None:
        super().__init__(network.parameters(), lr, momentum, nesterov=True, fused=True)
        self._share = share / lr if lr else 0.0  # for each unit of step size
        self._quantizers = {float_weight(layer): quantizer for layer, quantizer in rounded_weights(network)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        moving = [weight for weight in self._quantizers if weight.grad is not None]
        starts = [weight.clone() for weight in moving]
        loss = super().step(closure)
        (group,) = self.param_groups
        lr, momentum = group["lr"], group["momentum"]
        for weight, start in zip(moving, starts, strict=True):
            # Not the difference to the start, of which float32 leaves little where the step is small.
            move = -lr * (weight.grad + momentum * self.state[weight]["momentum_buffer"])
            times = _times(self._quantizers[weight], start, move, self._share * lr)
            if times > 1:
                weight.copy_(start + times * move)
        return loss


def _times(quantizer: WeightQuantizer, weight: Tensor, move: Tensor, share: float) -> float:
    before = _levels(quantizer, weight)

    def enough(times: float) -> bool:
        turned = torch.count_nonzero(_levels(quantizer, weight + times * move) != before)
        return turned.item() >= share * weight.numel()

    kernels = move.reshape(quantizer.shape)
    scale, _, bits = quantizer.grid_of(weight).beside(kernels, quantizer.channel_axis)
    furthest = (kernels / scale).abs().max().item()  # levels, in the plain step
    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if not 0 < high * furthest <= 2**bits:
            return 1.0
    for _ in range(_HALVINGS if low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _levels(quantizer: WeightQuantizer, weight: Tensor) -> Tensor:
    """Those that the layer computes with: near the edge between two, other arithmetic may find the other."""
    values = quantizer.rounded(weight).reshape(quantizer.shape)
    scale, zero_point, _ = quantizer.grid_of(weight).beside(values, quantizer.channel_axis)
    return torch.round(values / scale) + zero_point
