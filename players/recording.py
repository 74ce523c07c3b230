"""What goes through a block of a network, recorded over a pool of images."""

import tempfile
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from zerosum.players.blocks import Block
from zerosum.players.memory import spare_memory
from zerosum.players.mixing import mixed

_LARGEST_HALF = torch.finfo(torch.float16).max


class Inputs(NamedTuple):
    """What a block was called with on a pool of images: tensors with a row for each, and whatever else, which is the
    same for all."""

    leaves: list[Any]
    each: list[bool]
    spec: TreeSpec

    def of(self, chosen: Tensor, like: Tensor) -> "Inputs":
        """Those of the images with these indices, on the device and with the dtype of ``like``."""
        leaves = [rows_of(leaf, chosen, like) if of_each else leaf for leaf, of_each in self._marked()]
        return self._replace(leaves=leaves)

    def mixed(self, others: "Inputs", share: float) -> "Inputs":
        """Elementwise those of ``others``, with probability ``share``."""
        pairs = zip(self._marked(), others.leaves, strict=True)
        leaves = [
            mixed(leaf, other, share) if of_each and leaf.is_floating_point() else leaf
            for (leaf, of_each), other in pairs
        ]
        return self._replace(leaves=leaves)

    def _marked(self) -> list[tuple[Any, bool]]:
        return list(zip(self.leaves, self.each, strict=True))

    @property
    def first(self) -> Tensor:
        """The first that has a row for each image."""
        return next(leaf for leaf, of_each in self._marked() if of_each)


def rows_of(recorded: Tensor, chosen: Tensor, like: Tensor) -> Tensor:
    """The rows with these indices, laid out in memory as they were recorded, on the device and with the dtype of
    ``like``."""
    order = _order(recorded)  # index_select gives its dimensions as they come
    rows = recorded.permute(order).index_select(0, chosen.to(recorded.device)).permute(_inverse(order))
    return rows.to(like.device, like.dtype if rows.is_floating_point() else None)


def _order(rows: Tensor) -> list[int]:
    """Dimensions as they lie in memory, that of the rows first."""
    order = sorted(range(rows.ndim), key=rows.stride, reverse=True)
    return order if order[:1] == [0] else list(range(rows.ndim))


def _inverse(order: list[int]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]


def chained_inputs(output: Tensor) -> Inputs:
    """Those of a block that is called with what the block before it gave."""
    leaves, spec = tree_flatten(((output,), {}))
    return Inputs(leaves, [True], spec)


def run_block(network: nn.Module, block: Block, inputs: Inputs) -> Tensor:
    """What a block of the network, or of a copy, makes of such inputs."""
    args, kwargs = tree_unflatten(inputs.leaves, inputs.spec)
    first, *others = (network.get_submodule(name) for name in block.modules)
    x: Tensor = first(*args, **kwargs)
    for module in others:
        x = module(x)
    return x


class _Reached(Exception):
    """The block was reached, and nothing behind it is wanted."""


@torch.no_grad()
def record_inputs(network: nn.Module, block: Block, images: Tensor, batch_size: int) -> Inputs:
    """What the block of a network is given when that runs on images (N, channels, height, width), batch by batch."""
    found: list[tuple[list[Any], TreeSpec]] = []

    def reach(module: nn.Module, args: Any, kwargs: Any) -> None:
        found.append(tree_flatten((args, kwargs)))
        raise _Reached

    kept: dict[int, Tensor] = {}
    marks: list[bool] = []
    handle = network.get_submodule(block.modules[0]).register_forward_pre_hook(reach, with_kwargs=True, prepend=True)
    try:
        for start in range(0, len(images), batch_size):
            with suppress(_Reached):
                network(images[start : start + batch_size])
            leaves, spec = found.pop()
            each = iter(block.each)
            marks = [isinstance(leaf, Tensor) and next(each) for leaf in leaves]
            for place, leaf in enumerate(leaves):
                if marks[place]:
                    _put(kept, place, leaf, start, len(images))
    finally:
        handle.remove()
    return Inputs([kept.get(place, leaf) for place, leaf in enumerate(leaves)], marks, spec)


@torch.no_grad()
def record_output(network: nn.Module, block: Block, inputs: Inputs, like: Tensor, batch_size: int) -> Tensor:
    """What the block makes of recorded inputs, image by image; computed on the device and in the dtype of ``like``."""
    kept: dict[int, Tensor] = {}
    count = len(inputs.first)
    for chosen in torch.split(torch.arange(count), batch_size):
        _put(kept, 0, run_block(network, block, inputs.of(chosen, like)), int(chosen[0]), count)
    return kept[0]


def _put(kept: dict[int, Tensor], place: int, rows: Tensor, start: int, count: int) -> None:
    if place not in kept:
        kept[place] = _room(rows, count)
    if kept[place].dtype != rows.dtype:  # of half precision: beyond its range there is none
        rows = rows.clamp(-_LARGEST_HALF, _LARGEST_HALF)
    kept[place][start : start + len(rows)] = rows


def _room(rows: Tensor, count: int) -> Tensor:
    """An empty tensor for as many rows, laid out in memory as these are."""
    shape, order = (count, *rows.shape[1:]), _order(rows)
    size = count * rows[0].numel()
    if size * 4 <= spare_memory(rows.device) or not rows.is_floating_point():
        flat = torch.empty(size, dtype=rows.dtype, device=rows.device)
    else:  # on the disk, in half precision
        with tempfile.NamedTemporaryFile() as file:  # lives as long as the tensor
            flat = torch.from_file(file.name, shared=True, size=size, dtype=torch.float16)
    return flat.reshape([shape[axis] for axis in order]).permute(_inverse(order))
