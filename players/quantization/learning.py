"""What is done to the quantizers of a part of a network that learns by itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zerosum.players.mixing import mixed
from zerosum.players.quantization.layers import float_weight, weight_quantizer
from zerosum.players.quantization.precision import FULL_PRECISION
from zerosum.players.quantization.quantizers import ActivationQuantizer, WeightQuantizer


def rounded_weights(module: nn.Module) -> Iterator[tuple[nn.Module, WeightQuantizer]]:
    """The layers of a network, or of a part of it, whose weight is rounded, each with what rounds it."""
    for part in module.modules():
        quantizer = weight_quantizer(part)
        if isinstance(quantizer, WeightQuantizer) and quantizer.bits < FULL_PRECISION:
            yield part, quantizer


@torch.no_grad()
def settle(module: nn.Module) -> None:
    """Put weights at the levels that they are rounded to. Learning leaves many halfway between two, where the smallest
    step of a game would turn them over (Nagel et al., ICML 2022); so placed, one takes half a level."""
    for layer, quantizer in rounded_weights(module):
        if quantizer.rounding.settles and not quantizer.follows:
            weight = float_weight(layer)
            weight.copy_(quantizer.rounded(weight))


@contextmanager
def learning(rounders: Sequence[WeightQuantizer]) -> Iterator[None]:
    """Inside, roundings that are learned are where they have been learned to be, between levels where need be."""
    for rounder in rounders:
        rounder.rounding.learning(rounder, True)
    try:
        yield
    finally:
        for rounder in rounders:
            rounder.rounding.learning(rounder, False)


@contextmanager
def dropping(module: nn.Module, share: float) -> Iterator[None]:
    """Inside, that share of activations enters layers in full precision, drawn anew each time (QDrop)."""

    def drop(quantizer: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return mixed(output, args[0], share)

    quantizers = [part for part in module.modules() if isinstance(part, ActivationQuantizer)] if share else []
    handles = [quantizer.register_forward_hook(drop) for quantizer in quantizers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
