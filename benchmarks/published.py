"""The round as AdaSG's authors play it, written anew and plainly: what benchmarks/round.py measures the engine against.

Every gradient is computed, whoever reads it: those of P's weights, and those of Q's while G moves. Q runs forward
twice, fake quantization is a chain of elementwise operations, BatchNorm's moments take a pass each, and the generator
doubles its maps before it convolves them. The mathematics is that of recipes/adasg.py, to rounding.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam

from zerosum.objectives import adaptability_band, agreement_loss, bn_alignment, calibration_loss, disagreement_loss
from zerosum.players import Grid, batchnorm_layers
from zerosum.players.generator import DoublingConv2d
from zerosum.players.quantization.layers import float_weight, weight_quantizer
from zerosum.players.quantization.precision import FULL_PRECISION, quantizable_layers
from zerosum.players.quantization.quantizers import ActivationQuantizer
from zerosum.players.statistics import Moments
from zerosum.recipes.adasg import Config
from zerosum.recipes.common.data_free import Scene


class _Doubling(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution with the weights of ``layer``."""

    def __init__(self, layer: DoublingConv2d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(layer.weight.detach().clone()), nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, self.bias, padding=1)


def _round(x: Tensor, grid: Grid, shape: tuple[int, ...]) -> Tensor:
    scale, zero_point = grid.scale.reshape(shape), grid.zero_point.reshape(shape)
    levels, highest = torch.round(x / scale) + zero_point, 2**grid.bits - 1
    rounded = ((levels.clamp(0, highest) - zero_point) * scale).detach()
    return torch.where((levels >= 0) & (levels <= highest), x + (rounded - x).detach(), rounded)


class _WeightRounding(nn.Module):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.detach().flatten(1)
        grid = Grid.over(rows.amin(dim=1), rows.amax(dim=1), self.bits)
        return _round(weight, grid, (-1, *[1] * (weight.ndim - 1)))


class PublishedRound:
    """Plays rounds with copies of the networks of ``scene``, whose Q has its activation ranges.

    Of the options of ``config`` it knows the step sizes and the weights of the terms; grids are the default ones.
    """

    def __init__(self, scene: Scene, config: Config) -> None:
        self.scene, self.config = scene, config
        self.generator = copy.deepcopy(scene.source.module).to(memory_format=torch.contiguous_format)
        for i, stage in enumerate(self.generator.stages):
            if isinstance(stage, DoublingConv2d):
                self.generator.stages[i] = _Doubling(stage)
        self.teacher = without_hooks(scene.pair.teacher)
        self.student = without_hooks(scene.pair.teacher)
        ours = quantizable_layers(scene.pair.student)
        for name, layer in quantizable_layers(self.student).items():
            weights, inputs = weight_quantizer(ours[name]), getattr(ours[name], "input_quantizer", None)
            layer.weight.data.copy_(float_weight(ours[name]))
            if isinstance(inputs, ActivationQuantizer):
                grid = inputs.grid()
                layer.register_forward_pre_hook(lambda _, args, grid=grid: _round(args[0], grid, ()))
            if weights is not None and weights.bits < FULL_PRECISION:
                parametrize.register_parametrization(layer, "weight", _WeightRounding(weights.bits))
        self.batch_stats: list[Moments] = []
        layers = batchnorm_layers(self.teacher)
        self.running_stats = [(layer.running_mean, layer.running_var) for layer in layers]
        for layer in layers:
            layer.register_forward_pre_hook(self._tap)
        self.adam = Adam(self.generator.parameters(), config.generator_lr, betas=(0.5, 0.999))
        lr = scene.plan.quantized_lr if config.quantized_lr is None else config.quantized_lr
        self.sgd = SGD(self.student.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def _tap(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x, dims = args[0], [0, 2, 3]
        self.batch_stats.append((x.mean(dims), x.var(dims, correction=0)))

    def play(self) -> None:
        """One round: both players step from the same point, on the same images."""
        config = self.config
        latents, labels = self.scene.source.sample()
        self.adam.zero_grad()
        self.teacher.zero_grad()
        self.batch_stats = []
        images = self.generator(latents, labels)
        p, q = self.teacher(images), self.student(images)
        loss = (
            adaptability_band(p, q, config.low, config.high)
            + config.disagreement * disagreement_loss(p, q, labels)
            + config.agreement * agreement_loss(p, q, labels)
            + config.bn_alignment * bn_alignment(self.batch_stats, self.running_stats)
        )
        loss.backward()
        self.sgd.zero_grad()
        calibration_loss(p, self.student(images.detach()), config.temperature).backward()
        self.adam.step()
        self.sgd.step()


def without_hooks(teacher: nn.Module) -> nn.Module:
    """A copy whose weights want gradients, in PyTorch's default layout, that no taps read."""
    network = copy.deepcopy(teacher).requires_grad_(True).to(memory_format=torch.contiguous_format)
    for module in network.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    return network
