"""What the blocks of a network give, read off while it runs."""

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from zerosum.players.statistics import Taps


class BlockTaps(Taps):
    """Taps on modules of a network: after each forward pass, what each gave, where that has a place in the image.

    Args:
        names: of the modules, in the order in which they run; what P and its quantized copy are both to be asked for.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._features: list[Tensor] = []
        self._handles.append(network.register_forward_pre_hook(self._clear))
        for name in names:
            self._handles.append(network.get_submodule(name).register_forward_hook(self._tap))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_features": []}  # in a graph, they cannot be copied

    def take(self) -> list[Tensor]:
        """Of the newest forward pass, in the graph, and then forgotten: (N, channels, height, width) each; of tokens
        (N, tokens, channels), which have one axis for their places, (N, channels, tokens, 1)."""
        taken, self._features = self._features, []
        return taken

    def _clear(self, network: nn.Module, args: Any) -> None:
        self._features = []

    def _tap(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if output.ndim == 3:
            output = rearrange(output, "n t c -> n c t 1")
        if output.ndim == 4:
            self._features.append(output)
