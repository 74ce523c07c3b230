"""Networks that a user may hand in, and quantizing them quickly."""

import torch
from torch import nn

import zerosum

SHORT = {"rounds": 2, "warmup": 1, "block_steps": 1, "pool": 8, "batch_size": 4, "device": "cpu"}
PIXELS = {"mean": 0.5, "std": 0.25}


class Small(nn.Module):
    """Images (N, 3, 12, 20) → logits (N, 4)."""

    def __init__(self, channels=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.features(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(x.mean((2, 3)))


class Returning(Small):
    def __init__(self, wrapped):
        super().__init__()
        self.wrapped = wrapped

    def forward(self, x):
        return self.wrapped(super().forward(x))


class Shared(Small):
    def __init__(self):
        super().__init__()
        self.blocks[1].weight = self.blocks[0].weight


def state(network):
    """All that a caller could see of a module."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()]
    modes = [module.training for module in network.modules()]
    flags = [(p.requires_grad, p.dtype, p.grad, p.is_contiguous()) for p in network.parameters()]
    names = [sorted(vars(module)) for module in network.modules()]
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    return hooks, modes, flags, names, tensors


def assert_as_before(network, before):
    *flags, tensors = before
    *now, found = state(network)
    assert now == flags
    assert all(torch.equal(found[name], tensors[name]) for name in tensors | found)


def quantize(network, bits="w4a4", **options):
    return zerosum.quantize(network, bits, **{"progress": False} | SHORT | options)
