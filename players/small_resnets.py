"""Small residual networks, registered with timm so that they are names like any other.

``cifar_resnet20``, ``32``, ``44``, ``56``: He et al., CVPR 2016, section 4.2, with option-A shortcuts (subsampled,
padded with zero channels, no weights); parameter names are those of github.com/akamaster/pytorch_resnet_cifar10, so its
checkpoints load unchanged. ``digits_resnet8``: the same family, half as wide, on scikit-learn's 8×8 digits, its weights
shipped in this package (made by ``recipes/digits_teacher.py``).
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__ = ["SmallResNet"]

DIGITS_WEIGHTS = Path(__file__).parent / "weights" / "digits_resnet8.safetensors"


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around an option-A shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.padding = (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1 or self.padding:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class SmallResNet(nn.Module):
    """Three stages of residual blocks; images (N, in_chans, height, width) → logits (N, num_classes).

    Args:
        blocks: residual blocks a stage; the network has ``6 * blocks + 2`` layers.
        width: channels of the first stage; the second has twice, the third four times as many.
    """

    def __init__(self, blocks: int, width: int = 16, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, stride=1)
        self.layer2 = self._stage(width, 2 * width, blocks, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(channels_in, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


_COMMON = {"num_classes": 10, "crop_pct": 1.0, "first_conv": "conv1", "classifier": "linear"}
# The checkpoints were trained with ImageNet's mean and standard deviation.
_CIFAR = {**_COMMON, "input_size": (3, 32, 32), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Mean and standard deviation over the pixels of the training split, as recipes/digits_teacher.py prints them.
_DIGITS = {**_COMMON, "input_size": (1, 8, 8), "mean": (0.306,), "std": (0.376,), "file": str(DIGITS_WEIGHTS)}

default_cfgs = generate_default_cfgs(
    {f"cifar_resnet{depth}": _CIFAR for depth in (20, 32, 44, 56)} | {"digits_resnet8": _DIGITS}
)


def _build(name: str, blocks: int, pretrained: bool, **kwargs: Any) -> SmallResNet:
    return build_model_with_cfg(SmallResNet, name, pretrained, blocks=blocks, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    return _build("cifar_resnet20", 3, pretrained, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    return _build("cifar_resnet32", 5, pretrained, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    return _build("cifar_resnet44", 7, pretrained, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    return _build("cifar_resnet56", 9, pretrained, **kwargs)


@register_model
def digits_resnet8(pretrained: bool = False, **kwargs: Any) -> SmallResNet:
    return _build("digits_resnet8", 1, pretrained, **{"in_chans": 1, "width": 8} | kwargs)
