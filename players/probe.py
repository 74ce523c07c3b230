"""A network as it runs on an image that says nothing, and as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zerosum.players.backbones import InputSpace, input_space


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Every module in eval mode; afterwards each in its own again."""
    modes = [(module, module.training) for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def probe(network: nn.Module, space: InputSpace | None = None, images: int = 1) -> Any:
    """What the network makes of that many images of zeros, in eval mode.

    Args:
        space: what it takes; default: what its timm config says.

    Raises:
        ValueError: no ``space``, and no timm config.
    """
    space = space or input_space(network)
    like = next(network.parameters())
    with evaluating(network):
        return network(torch.zeros(images, space.channels, *space.size, device=like.device, dtype=like.dtype))
