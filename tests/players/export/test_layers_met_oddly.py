"""Layers that see zeros alone, are never reached, run twice, or have two names: exported, saved and loaded alike."""

import onnx_ir
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from zerosum.players import Bits, Scheme, calibrate, layer_bits, quantize
from zerosum.players.export.onnx_file import load_onnx
from zerosum.players.export.onnx_graph import onnx_model
from zerosum.players.export.program import float_twin, integer_network, trace
from zerosum.players.export.pt2_file import save_pt2
from zerosum.players.quantization import quantizable_layers
from zerosum.players.quantization.packing import load_packed, packed_state


class Odd(nn.Module):
    """The first convolution's output goes where ``kind`` says."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.norm = kind, nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)
        self.layer, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.tokens = nn.Linear(4, 4)
        if kind == "two names":
            self.again, self.path = self.layer, nn.Sequential(self.first, self.norm)
        if kind == "one weight":
            self.again = nn.Conv2d(4, 4, 3, padding=1)
            self.again.weight = self.layer.weight
        if kind == "no weight":
            nn.init.zeros_(self.layer.weight)

    def forward(self, x):
        x = self.path(x) if self.kind == "two names" else self.norm(self.first(x))
        if self.kind == "zeros":
            x = x + self.layer(x * 0) + self.layer(F.relu(-x.square()))
        elif self.kind == "constant zeros":
            x = x + self.layer(torch.zeros(1, 4, 5, 5))
        elif self.kind in ("two names", "one weight"):
            x = self.again(F.relu(self.layer(x)))
        elif self.kind == "no weight":
            x = x + self.layer(x)
        elif self.kind == "twice":
            x = self.layer(F.relu(self.layer(x)))
        elif self.kind == "twice tokens":
            x = self.tokens(F.relu(self.tokens(x.movedim(1, -1)))).movedim(-1, 1)
        elif self.kind == "twice flat":
            return self.head(F.relu(self.tokens(self.tokens(x.mean((2, 3))))))
        return self.head(x.mean((2, 3)))


KINDS = ("zeros", "constant zeros", "no weight", "unreached", "twice", "twice tokens", "twice flat")
KINDS += ("two names", "one weight")
SCHEMES = [("w4a4", Scheme()), ("w8a8", Scheme("pairwise", "symmetric")), ("w8a8", Scheme())]


def quantized_and_images(network, bits, scheme):
    images = torch.randn(16, 2, 5, 5)
    for norm in (module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.data, norm.running_var.data = torch.randn(4), 0.5 + torch.rand(4)
    quantized = quantize(network, Bits.parse(bits), scheme)
    calibrate(quantized, [images])
    return network, quantized, images


class AllKinds(nn.Module):
    """One of each side by side, for one export takes as long as nine."""

    def __init__(self):
        super().__init__()
        self.kinds = nn.ModuleList(map(Odd, KINDS))

    def forward(self, x):
        return torch.stack([odd(x) for odd in self.kinds], 1)


def assert_near(found, expected):
    """For each kind, in shares of its own largest logit."""
    size = expected.abs().amax(dim=(0, 2))
    apart = (found - expected).abs().amax(dim=(0, 2))
    assert all(apart <= 0.02 * size), dict(zip(KINDS, (apart / size).tolist(), strict=True))


@pytest.mark.parametrize(("bits", "scheme"), SCHEMES, ids=str)
def test_they_are_exported_and_agree(tmp_path, bits, scheme):
    _, quantized, images = quantized_and_images(AllKinds(), bits, scheme)
    with torch.no_grad():
        expected = quantized(images)
    integers = integer_network(quantized, images[:2])
    program = trace(integers, images[:2])
    assert_near(integers(images), expected)
    assert float_twin(integers)(images).shape == expected.shape
    save_pt2(program, tmp_path / "q.pt2")
    assert_near(torch.export.load(tmp_path / "q.pt2").module()(images), expected)
    names = quantized.named_modules(remove_duplicate=False)
    widths = {module: layer_bits(quantized)[name] for name, module in quantizable_layers(quantized).items()}
    onnx_ir.save(onnx_model(program, {n: widths[m] for n, m in names if m in widths}, 21), tmp_path / "q.onnx")
    assert_near(load_onnx(tmp_path / "q.onnx")[0](images), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_saved_and_loaded(kind):
    network, quantized, images = quantized_and_images(Odd(kind), "w4a4", Scheme())
    state = load(save(packed_state(quantized)))
    loaded = load_packed(network, state, layer_bits(quantized), Scheme())
    assert torch.equal(loaded(images), quantized(images))
