"""Swing: a network that looks at another pixel of its grid each time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zerosum.players.arguments import input_of, with_input

_REACH = 1  # pixels


@contextmanager
def swinging(network: nn.Module, drawing: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Iterator[None]:
    """Inside, what enters each strided convolution is moved by up to a pixel at random, in each direction.

    A strided convolution never looks at some pairs of positions; images that are optimized through it get a chequered
    pattern, which moving removes (Genie, Jeon et al., CVPR 2023). The input is padded by one pixel, reflected, and cut
    back to its size, at an offset of 0, 1 or 2 that is drawn anew in each forward pass, one for all images. Inputs that
    are one pixel high or wide have nothing to reflect, and stay. Offsets are drawn within ``drawing()``.
    """

    def move(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = input_of(layer, args, kwargs)
        height, width = x.shape[2:]
        if min(height, width) <= _REACH:
            return None
        with drawing():
            down, right = torch.randint(2 * _REACH + 1, (2,)).tolist()
        x = F.pad(x, [_REACH] * 4, mode="reflect")[:, :, down : down + height, right : right + width]
        return with_input(layer, args, kwargs, x)

    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    handles = [layer.register_forward_pre_hook(move, with_kwargs=True) for layer in strided]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
