"""Programs for ``torch.export.load``: as small as their bits, and nothing of the machine that wrote them."""

import zipfile
from pathlib import Path

import pytest
import torch

import zerosum
from tests.players.export.test_onnx import INTEGER
from zerosum.players import Bits, assign_bits, calibrate, load_backbone, quantize
from zerosum.players.export.program import float_twin, integer_network, trace
from zerosum.players.export.pt2_file import save_pt2


@pytest.mark.parametrize(("bits", "share"), [("w8a8", 0.35), ("w4a8", 0.19)])
def test_a_program_is_as_small_as_its_bits(bits, share, tmp_path):
    torch.manual_seed(0)
    network, images = load_backbone("cifar_resnet20", "random"), torch.randn(8, 3, 32, 32)
    quantized = quantize(network, assign_bits(network, Bits.parse(bits)), INTEGER)
    calibrate(quantized, [images])
    integers = integer_network(quantized, images[:2])
    save_pt2(trace(integers, images[:2]), tmp_path / "quantized.pt2")
    save_pt2(trace(float_twin(integers), images[:2]), tmp_path / "float32.pt2")
    assert {path.name for path in tmp_path.iterdir()} == {"quantized.pt2", "float32.pt2"}
    sizes = [(tmp_path / f"{name}.pt2").stat().st_size for name in ("quantized", "float32")]
    assert sizes[0] < share * 4 * sum(p.numel() for p in network.parameters())
    assert sizes[0] < sizes[1]
    with torch.no_grad():
        found = torch.export.load(tmp_path / "quantized.pt2").module()(images)
        torch.testing.assert_close(found, quantized(images), atol=0.02 * found.abs().max().item(), rtol=0)
    with zipfile.ZipFile(tmp_path / "quantized.pt2") as file:
        records = b"".join(file.read(name) for name in file.namelist())
    assert str(Path(zerosum.__file__).parent).encode() not in records
