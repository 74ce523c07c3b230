"""Which layer gets how many bits."""

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

from torch import nn
from torch.nn.modules.conv import _ConvNd

from zerosum.players.backbones import InputSpace
from zerosum.players.lazy import timm
from zerosum.players.quantization.attention import SeparateAttention, separated
from zerosum.players.quantization.tracing import find_ends

if TYPE_CHECKING:
    from timm.layers import CondConv2d

FULL_PRECISION = 32
_MOST = 8, 16  # bits of weights and of activations
_INPUT_BITS = 8  # images come in 8 bits
_OFFERED = 6  # layer names in a message


_UNKNOWN = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
Layer: TypeAlias = "_ConvNd | nn.Linear | CondConv2d"


class Bits(NamedTuple):
    """Bits of a layer's weight (2 to 8) and of the activation that enters it (2 to 16), or 32 for full precision."""

    weight: int
    activation: int

    @classmethod
    def parse(cls, text: str) -> "Bits":
        """``"w4a8"`` → ``Bits(4, 8)``.

        Raises:
            ValueError: the text has another form, or a width that there is not.
        """
        match = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
        if match is None:
            raise ValueError(f"bits {text!r}: expected w<bits>a<bits>, for weights and activations, such as w4a4")
        bits = cls(int(match[1]), int(match[2]))
        bits.check(f"bits {text!r}")
        return bits

    def check(self, where: str) -> None:
        """That widths are those that there are.

        Raises:
            ValueError: one is not; ``where`` begins the message.
        """
        for width, most, what in zip(self, _MOST, ("weights", "activations"), strict=True):
            if not (2 <= width <= most or width == FULL_PRECISION):
                expected = f"2 to {most} bits nor {FULL_PRECISION} (full precision)"
                raise ValueError(f"{where}: of {what}, {width} is neither {expected}")

    def __str__(self) -> str:
        return f"w{self.weight}a{self.activation}"


def is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """Whether it is a convolution or a linear layer."""
    return isinstance(module, _ConvNd | nn.Linear | timm.layers.CondConv2d)


def quantizable_layers(network: nn.Module) -> dict[str, Layer]:
    """The convolutions and linear layers of a network, by name.

    Convolutions of any dimension, transposed and conditional ones too, and subclasses of all, in the order in which the
    network holds them; of nn.MultiheadAttention, those that take its place in :func:`separated`.

    Raises:
        ValueError: there are none, or the network has modules that multiply with matrices of their own.
    """
    network = separated(network)
    for name, module in network.named_modules():
        if isinstance(module, _UNKNOWN) and not isinstance(module, SeparateAttention):
            kinds = [kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn.modules.")]
            what = f"an nn.{kinds[0].__name__}"
            if type(module) is not kinds[0]:
                what = f"{type(module).__name__}, {what} of its own kind"
            raise ValueError(
                f"{name or 'the network'} is {what}, whose matrices cannot be quantized; "
                "expected Conv and Linear layers in its place"
            )
    layers = {name: module for name, module in network.named_modules() if is_layer(module)}
    if not layers:
        raise ValueError(f"nothing to quantize: {type(network).__name__} has no Conv and no Linear layer")
    return layers


def assign_bits(
    network: nn.Module,
    bits: Bits,
    overrides: Sequence[str] = (),
    first_last: Bits | None = None,
    space: InputSpace | None = None,
) -> dict[str, Bits]:
    """The bits of every quantizable layer of ``network``, by its name.

    Args:
        bits: of all layers. The network's own input is kept at 8 bits or more, in each layer that it enters before it
            has been through another. Which these are, one forward pass tells; of a network whose input is not known,
            the layer that it holds first is taken for the one.
        overrides: ``"PATTERN=w<bits>a<bits>"`` each; the pattern is a layer's name, in which ``*`` stands for anything,
            ``?`` for any one character. They hold against ``bits`` and ``first_last``, for the network's input too.
        first_last: of the layers that the network's input enters, and of the one that runs last.
        space: what the network takes; default: what its timm config says, if there is one.

    Raises:
        ValueError: an override of another form, bits out of range, a pattern that names no layer, or two patterns that
            want different bits for one layer.
    """
    network = separated(network)
    layers = quantizable_layers(network)
    names, ends = list(layers), find_ends(network, layers, space)
    assigned = dict.fromkeys(names, bits)
    if first_last is not None:
        assigned |= dict.fromkeys((*ends.entered, ends.last), first_last)
    for name in ends.entered:
        assigned[name] = assigned[name]._replace(activation=max(assigned[name].activation, _INPUT_BITS))

    wanted: dict[str, tuple[str, Bits]] = {}
    for override in overrides:
        pattern, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"layer bits {override!r}: expected PATTERN=w<bits>a<bits>, such as {names[0]}=w8a8")
        try:
            chosen = Bits.parse(text)
        except ValueError as error:
            raise ValueError(f"layer bits {override!r}: {error}; layers: {_some(names)}") from error
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(f"layer bits {override!r}: no layer is named so; {_offer(pattern, names)}")
        for name in matching:
            other, already = wanted.setdefault(name, (override, chosen))
            if already != chosen:
                both = [n for n in matching if fnmatchcase(n, other.partition("=")[0])]
                raise ValueError(f"layer bits {other!r} and {override!r} disagree about {_some(both)}")
    return assigned | {name: chosen for name, (_, chosen) in wanted.items()}


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - _OFFERED} more" if len(names) > _OFFERED else ""
    return ", ".join(names[:_OFFERED]) + more


def _offer(pattern: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(pattern.strip("*?."), names, n=_OFFERED, cutoff=0.4)
    return f"nearest: {_some(close)}" if close else f"layers: {_some(names)}"
