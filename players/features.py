"""What the blocks of a network see, read off while it runs."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from zerosum.players.backbones import InputSpace
from zerosum.players.blocks import Block
from zerosum.players.quantization.precision import quantizable_layers
from zerosum.players.quantization.tracing import find_ends
from zerosum.players.statistics import ListeningTaps, Taps


class BlockTaps(ListeningTaps):
    """Taps on blocks of a network, or of a copy: what each gives last that has places, which pooling takes away.

    Places are pixels, or tokens but for class and register tokens, which are left out. A block that gives nothing with
    places (a head) is passed over.

    Args:
        network: to listen to.
        names: of the modules of each block, as :func:`modules_of` finds them.
    """

    def __init__(self, network: nn.Module, names: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"  # what timm calls it
        for place, block in enumerate(names):
            for name in block:
                self._handles.append(network.get_submodule(name).register_forward_hook(self._tap(place)))

    def take(self) -> list[Tensor]:
        """Of the pass that was listened to, (N, channels, height, width) of each block, in their order and in the
        graph; of tokens (N, tokens, channels), which have one axis for their places, (N, channels, tokens, 1)."""
        return self._taken()

    def _tap(self, place: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            given = output
            if self.listening and isinstance(output, Tensor):
                output = output.to(torch.promote_types(output.dtype, torch.float32))
                given = output.to(given.dtype)  # what follows is computed from what is taken
                if output.ndim == 3:
                    output = rearrange(output[:, self._prefix :], "n t c -> n c t 1")
                elif output.ndim == 4 and self._channels_last and not isinstance(module, nn.Conv2d):
                    output = rearrange(output, "n h w c -> n c h w")
                if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                    self._hear(output, place)
            return given

        return hook


class HeadTap(Taps):
    """A tap on what enters the last layer of a network that has weights to quantize: while it is open, the features of
    the newest forward pass, (N, D), in the graph.

    Args:
        space: what the network takes.
    """

    features: Tensor

    def __init__(self, network: nn.Module, space: InputSpace) -> None:
        super().__init__()
        head = find_ends(network, quantizable_layers(network), space).last
        self._layer = network.get_submodule(head)

    def __enter__(self) -> "HeadTap":
        self._handles.append(self._layer.register_forward_pre_hook(self._tap))
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def _tap(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.features = args[0].flatten(1)


def modules_of(network: nn.Module, blocks: Sequence[Block]) -> list[list[str]]:
    """The names of all modules of each block, the inner ones too: those of P, for its quantized copy has more."""

    def within(name: str, block: Block) -> bool:
        return any(name == outer or name.startswith(f"{outer}.") for outer in block.modules)

    return [[name for name, _ in network.named_modules() if within(name, block)] for block in blocks]
