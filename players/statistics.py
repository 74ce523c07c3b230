"""What a network's BatchNorm layers see, read off while it runs."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNormTaps:
    """Taps on every BatchNorm layer of a network: after each forward pass, the moments of what each layer was given.

    ``batch_stats`` and ``running_stats`` are lists of (mean, variance) pairs, each (channels,), one a layer in the
    order the layers ran; the batch variance is biased. The batch moments stay in the graph, so a term of them reaches
    whoever made the images.

    Raises:
        ValueError: the network has no BatchNorm layer that keeps running statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if not layers:
            raise ValueError(
                f"{type(network).__name__} has no BatchNorm layer, so there are no statistics to align images with; "
                "choose a backbone with BatchNorm, such as resnet18 or mobilenetv2_100"
            )
        self.batch_stats: list[tuple[Tensor, Tensor]] = []
        self.running_stats: list[tuple[Tensor, Tensor]] = []
        network.register_forward_pre_hook(self._clear)
        for layer in layers:
            layer.register_forward_pre_hook(self._tap)

    def _clear(self, network: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.batch_stats, self.running_stats = [], []

    def _tap(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        variance, mean = torch.var_mean(x, dim=[d for d in range(x.ndim) if d != 1], correction=0)
        self.batch_stats.append((mean, variance))
        self.running_stats.append((layer.running_mean, layer.running_var))  # type: ignore[arg-type]
