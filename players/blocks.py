"""Blocks: the pieces that a network is cut into where it is worked on a piece at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zerosum.players.backbones import InputSpace
from zerosum.players.probe import probe
from zerosum.players.quantization import quantizable_layers, separated

BLOCKS = "blocks.csv"
"""What a run's folder keeps of them."""
_LARGEST = 12  # layers of a block
_LONGEST = 5  # layers of a block in which each follows on the one before


class Block(NamedTuple):
    """Modules of a network that run one after another, each on what the one before gives, by name.

    The first holds the block's quantizable ``layers``; those behind it (BatchNorm, activation functions, pooling) have
    none. ``chained``: the block is called with what the block before it gives, and nothing else. ``each``: of the
    tensors that it is called with, which have a row for each image; others (a mask, say) are the same for all.
    """

    modules: tuple[str, ...]
    layers: tuple[str, ...]
    chained: bool
    each: tuple[bool, ...]

    @property
    def name(self) -> str:
        """Of its first module and, where there are several, of the last."""
        return " … ".join(dict.fromkeys((self.modules[0], self.modules[-1])))


class Division(NamedTuple):
    """Blocks in the order in which they run; and the layers that are in none, because they run several times or not at
    all, or are not given one thing an image."""

    blocks: tuple[Block, ...]
    left_out: tuple[str, ...]


def find_blocks(network: nn.Module, space: InputSpace | None = None) -> Division:
    """The blocks of any network, found on two forward passes.

    A residual block, an inverted residual, a transformer block is one, whatever its class: a module whose layers do
    not simply follow on one another, or a few that do. What is larger is cut into what it is made of, down to single
    layers. Modules without layers belong to the block that they follow on. Every layer is in one block, or left out.

    Args:
        space: what the network takes; default: what its timm config says.

    Raises:
        ValueError: nothing to quantize, or no ``space`` and no timm config.
    """
    network = separated(network)
    layers = quantizable_layers(network)
    route = _Route(network, list(layers), space)
    blocks: list[Block] = []
    chain: list[str] = []
    for name in [*sorted(route.pieces(""), key=lambda piece: route.calls[piece].order), None]:
        if name is not None and chain and not route.inside(name) and route.is_given_all(name, chain[-1]):
            chain.append(name)
            continue
        if chain:
            chained = bool(blocks) and route.is_given_all(chain[0], blocks[-1].modules[-1])
            blocks.append(Block(tuple(chain), tuple(route.inside(chain[0])), chained, route.each(chain[0])))
        chain = [name] if name is not None and route.inside(name) else []
    held = {layer for block in blocks for layer in block.layers}
    return Division(tuple(blocks), tuple(name for name in layers if name not in held))


@dataclass
class _Call:
    """How a module was called last, and how often; ``alone``: with a tensor by position, and nothing else; ``order`` is
    when it began first. A tensor that is written into stays the same one, but has another version."""

    inputs: list[Tensor]
    versions: list[int]
    options: list[Any]
    alone: bool
    order: int
    times: int
    output: Any = None
    version: int = -1  # of the output, when it was given


class _Route:
    """How images go through the modules of a network, on two images and on three."""

    def __init__(self, network: nn.Module, layers: list[str], space: InputSpace | None) -> None:
        self.network, self.layers = network, layers
        self.calls, self.others = (_calls(network, space, images) for images in (2, 3))

    def inside(self, name: str) -> list[str]:
        """Of the layers, those in a module, or which it is."""
        return [layer for layer in self.layers if not name or layer == name or layer.startswith(f"{name}.")]

    def pieces(self, name: str) -> Iterator[str]:
        """What a module is cut into: outermost modules that are a block each or, without layers, may belong to one."""
        module, layers = self.network.get_submodule(name), self.inside(name)
        if name and self._splits(name) and (not layers or self._is_one(name, layers)):
            yield name
            return
        for child, _ in module.named_children() if layers else ():
            yield from self.pieces(f"{name}.{child}" if name else child)

    def follows(self, name: str, before: str) -> bool:
        """Whether a module is given what another gives, and nothing else."""
        call, other = self.calls[name], self.calls[before]
        return len(call.inputs) == 1 and call.inputs[0] is other.output and call.versions == [other.version]

    def is_given_all(self, name: str, before: str) -> bool:
        """Whether that is by position, beside no options."""
        return self.calls[name].alone and self.follows(name, before)

    def each(self, name: str) -> tuple[bool, ...]:
        """Of the tensors that a module is given, which have a row for each image."""
        pairs = zip(self.calls[name].inputs, self.others[name].inputs, strict=True)
        return tuple(_of_each(two, three) for two, three in pairs)

    def _is_one(self, name: str, layers: list[str]) -> bool:
        if name in layers:
            return True
        parts = [part for part in self._parts(name) if self.inside(part)]
        if len(parts) < 2 or not self._is_chain(name):
            return len(parts) > 1 and len(layers) <= _LARGEST
        return len(layers) <= _LONGEST and all(len(self.inside(part)) == 1 for part in parts)

    def _parts(self, name: str) -> list[str]:
        children = [f"{name}.{child}" for child, _ in self.network.get_submodule(name).named_children()]
        return sorted((child for child in children if child in self.calls), key=lambda part: self.calls[part].order)

    def _is_chain(self, name: str) -> bool:
        """Whether a module's children run one after another, and that is all."""
        parts, own = self._parts(name), self.calls[name]
        begins, ends = self.calls[parts[0]], self.calls[parts[-1]]
        links = all(self.follows(part, before) for before, part in pairwise(parts))
        whole = len(begins.inputs) == len(own.inputs) == 1 and begins.inputs[0] is own.inputs[0]
        unwritten = begins.versions == own.versions and ends.version == own.version
        return whole and links and unwritten and ends.output is own.output

    def _splits(self, name: str) -> bool:
        """Whether a module runs once, is given something of each image, and gives one tensor of each."""
        call, other = self.calls.get(name), self.others.get(name)
        if call is None or other is None or call.times > 1 or len(call.inputs) != len(other.inputs):
            return False
        if call.options != other.options:
            return False
        if not (isinstance(call.output, Tensor) and _of_each(call.output, other.output)):
            return False
        each = self.each(name)
        same = [two.shape == three.shape for two, three in zip(call.inputs, other.inputs, strict=True)]
        return any(each) and all(one or other for one, other in zip(each, same, strict=True))


def _of_each(two: Tensor, three: Tensor) -> bool:
    return two.shape[:1] == (2,) and three.shape[:1] == (3,) and two.shape[1:] == three.shape[1:]


def _calls(network: nn.Module, space: InputSpace | None, images: int) -> dict[str, _Call]:
    """Of all modules that run on that many images, by name; an input or output is the tensor itself, held."""
    calls: dict[str, _Call] = {}

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            leaves = tree_leaves((args, kwargs))
            inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            options = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
            order, times = (calls[name].order, calls[name].times) if name in calls else (len(calls), 0)
            alone = len(args) == len(inputs) == 1 and not kwargs
            calls[name] = _Call(inputs, [x._version for x in inputs], options, alone, order, times + 1)

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[name].output, calls[name].version = output, output._version if isinstance(output, Tensor) else -1

        return hook

    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        probe(network, space, images)
    finally:
        for handle in handles:
            handle.remove()
    return calls
