import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import bit_widths, seeds
from zerosum.players import Bits, Scheme, calibrate, layer_bits, load_backbone, quantize
from zerosum.players.quantization.packing import load_packed, pack, packed_state, unpack

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(seeds, bit_widths, shapes)
def test_packing_loses_nothing_and_leaves_no_gaps(seed, bits, shape):
    levels = torch.randint(2**bits, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack(levels, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-levels.numel() * bits // 8)
    assert torch.equal(unpack(packed, bits, levels.shape), levels)


def test_packed_by_hand():
    # 101 011 110 → 10101111 0(0000000)
    assert pack(torch.tensor([5, 3, 6]), 3).tolist() == [0b10101111, 0]
    with pytest.raises(ValueError, match=r"\(2,\) bytes; \(4, 4\) weights of 3 bits have 6"):
        unpack(torch.zeros(2, dtype=torch.uint8), 3, torch.Size([4, 4]))


@pytest.mark.parametrize("bits", [Bits(3, 4), Bits(8, 32), Bits(32, 5), Bits(32, 32)], ids=str)
@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(),
        Scheme("mse", "symmetric", "per-tensor"),
        Scheme("lsq", activation_range="lsq"),
    ],
    ids=str,
)
def test_a_network_comes_back_from_its_packed_state(scheme, bits):
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 2), nn.Flatten(), nn.Linear(75, 3))
    ).eval()
    images = torch.randn(8, 1, 6, 6)
    quantized = quantize(network, bits, scheme)
    calibrate(quantized, [images])
    state = packed_state(quantized)
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in state.values())
    assigned = dict.fromkeys(("0", "2", "4"), bits) | {"0": bits._replace(activation=max(8, bits.activation))}
    loaded = load_packed(network, state, assigned, scheme)
    assert torch.equal(loaded(images), quantized(images))


@pytest.mark.parametrize(("then", "now"), [(3, 4), (4, 3)])
def test_what_auto_stood_for_when_it_was_packed_holds(then, now, monkeypatch):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.randn(8, 1, 6, 6)
    monkeypatch.setattr("zerosum.players.quantization.ranges._FEW_BITS", then)
    quantized = quantize(network, Bits(4, 4), Scheme())
    calibrate(quantized, [images])
    state, bits = packed_state(quantized), layer_bits(quantized)
    monkeypatch.setattr("zerosum.players.quantization.ranges._FEW_BITS", now)
    assert torch.equal(load_packed(network, state, bits, Scheme())(images), quantized(images))


def test_the_size_is_that_of_the_bits():
    network = load_backbone("cifar_resnet20", "random")
    eight, four = (sum(t.nbytes for t in packed_state(quantize(network, Bits(n, 32))).values()) for n in (8, 4))
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert eight - four == weights // 2
