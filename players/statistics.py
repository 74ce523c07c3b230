"""What a network makes of images inside, read off while it runs."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from zerosum.players.arguments import input_of
from zerosum.players.lazy import timm

_PATCHES = 64
Moments = tuple[Tensor, Tensor]


def batchnorm_layers(network: nn.Module) -> list[nn.Module]:
    """The BatchNorm layers of a network that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


class Taps:
    """Hooks on a network, until they are removed."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class ListeningTaps(Taps):
    """Taps that hear a forward pass when they are asked to, and cost nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = False
        self._heard: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_heard": {}}  # which may be in a graph, and cannot be copied

    def listen(self) -> None:
        """To the next forward pass."""
        self.listening, self._heard = True, {}

    def _hear(self, what: Any, place: int | None = None) -> None:
        """Keep it, behind all else; or in a place, where what was heard there last is kept alone."""
        self._heard[len(self._heard) if place is None else place] = what

    def _taken(self) -> list[Any]:
        """What was heard, in order, which is then forgotten, or its graph would outlive the round."""
        heard = [self._heard[place] for place in sorted(self._heard)]
        self.listening, self._heard = False, {}
        return heard


class BatchNormTaps(ListeningTaps):
    """Taps on every BatchNorm layer of a network: after a forward pass, the moments of what each layer was given.

    Raises:
        ValueError: the network has no BatchNorm layer that keeps running statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = batchnorm_layers(network)
        if not layers:
            raise ValueError(f"{type(network).__name__} has no BatchNorm layer, so no statistics to align images with")
        super().__init__()
        for layer in layers:
            self._handles.append(layer.register_forward_pre_hook(self._tap, with_kwargs=True))

    def take(self) -> tuple[list[Moments], list[Moments]]:
        """The moments of the pass that was listened to, which are then forgotten.

        Returns:
            Of the batch (biased variance) and running (mean, variance) pairs, each (channels,), one a layer in the
            order the layers ran. The batch's stay in the graph, so that a term of them reaches whoever made the images.
        """
        heard = self._taken()
        return [batch for batch, _ in heard], [running for _, running in heard]

    def _tap(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.listening:
            found = moments_of_channels(input_of(layer, args, kwargs))
            self._hear((found, (layer.running_mean, layer.running_var)))


def moments_of_channels(x: Tensor) -> Moments:
    """Mean and biased variance of each channel, both (channels,), float32 at least, of ``x`` (N, channels, …)."""
    mean, variance = _Moments.apply(x)
    return mean, variance


class _Moments(torch.autograd.Function):
    """As torch.var_mean, by the kernel that BatchNorm uses in training, ten times faster on the CPU (measured,
    16 × 16 × 32 × 32), and with a gradient of one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = of_variance * (2 / count)
        offset = of_mean / count - slope * mean
        shape = (-1, *[1] * (x.ndim - 2))
        return torch.addcmul(offset.view(shape), x, slope.view(shape)).to(x.dtype)


class PatchTaps(ListeningTaps):
    """Taps on how a network tells the patches of an image apart.

    Read are the outputs of the self-attention modules, as PSAQ-ViT takes them (Li et al., ECCV 2022), which are the
    innermost modules with ``num_heads``; in a network without attention, what its LayerNorm and GroupNorm layers are
    given. Where attention works in windows, each window counts as an image. Class and register tokens are left out, and
    of many patches at most 64 are taken, evenly spaced.

    Raises:
        ValueError: the network has neither attention nor such layers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        attention = [m for m in network.modules() if _attends(m) and sum(map(_attends, m.modules())) == 1]
        norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
        if not attention and not norms:
            raise ValueError(
                f"{type(network).__name__} has no attention, no LayerNorm and no GroupNorm, so no patches to compare"
            )
        for module in attention:
            self._handles.append(module.register_forward_hook(self._tap_attention))
        for norm in norms if not attention else ():
            self._handles.append(norm.register_forward_pre_hook(self._tap_norm, with_kwargs=True))

    def take(self) -> list[Tensor]:
        """Of the pass that was listened to, tensors (images, patches, channels) in the order they were reached, in the
        graph; they are then forgotten."""
        return self._taken()

    def _tap_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        x = output[0] if isinstance(output, Sequence) else output
        if x.ndim == 3 and not getattr(module, "batch_first", True):
            x = x.transpose(0, 1)
        self._tap(x[:, self._prefix :] if x.ndim == 3 else x)

    def _tap_norm(self, norm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        channel_axis = 1 if isinstance(norm, nn.GroupNorm | timm.layers.LayerNorm2d) else -1
        self._tap(input_of(norm, args, kwargs).movedim(channel_axis, -1))

    def _tap(self, x: Tensor) -> None:
        if x.ndim < 3 or not self.listening:  # pooled, where it has two
            return
        patches = rearrange(x, "n ... c -> n (...) c")
        if patches.shape[1] > 1:
            self._hear(patches[:, :: -(-patches.shape[1] // _PATCHES)])


def _attends(module: nn.Module) -> bool:
    return isinstance(getattr(module, "num_heads", None), int)
