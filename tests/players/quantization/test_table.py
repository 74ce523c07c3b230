import csv
import io
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from zerosum.players import (
    Architecture,
    Bits,
    InputSpace,
    Scheme,
    assign_bits,
    calibrate,
    describe_layers,
    input_space,
    load_backbone,
    quantize,
    save_quantized,
)
from zerosum.players.quantization.table import sqnr


def described(name, bits, overrides=(), first_last=None, size=32):
    network = load_backbone(name, "random")
    quantized = quantize(network, assign_bits(network, bits, overrides, first_last))
    images = torch.randn(2, 3, size, size)
    calibrate(quantized, [images])
    return quantized, describe_layers(network, quantized, images, Scheme())


def test_sqnr_by_hand():
    x = torch.tensor([3.0, 4.0])
    assert sqnr(x, x + torch.tensor([0.3, 0.4])) == pytest.approx(20, abs=1e-4)
    assert sqnr(x, x) == math.inf
    assert sqnr(torch.zeros(2), x) == -math.inf


def test_the_sizes_of_resnet18_add_up_to_the_file(tmp_path):
    quantized, table = described("resnet18", Bits(4, 4), first_last=Bits(8, 8), size=64)
    save_quantized(
        tmp_path / "q.safetensors", quantized, Architecture("timm", "resnet18"), input_space(quantized), Scheme()
    )
    file = (tmp_path / "q.safetensors").stat().st_size
    assert table.size == pytest.approx(file, rel=0.02)
    rows = {row.layer: row for row in table.rows}
    assert len(rows) == 21
    assert {name for name, row in rows.items() if row.bits == (8, 8)} == {"conv1", "fc"}
    assert sum(row.size for row in table.rows) < table.size
    assert rows["layer4.1.conv2"].size == pytest.approx(512 * 512 * 9 / 2, rel=0.01)
    assert rows["layer4.1.conv2"].share == pytest.approx(rows["layer4.1.conv2"].size / file, rel=0.02)
    assert table.float_size == pytest.approx(46.8e6, rel=0.01)


def test_rows_say_what_became_of_a_layer():
    quantized, table = described("cifar_resnet20", Bits(4, 32), ["layer1.*=w32a6", "linear=w32a32"])
    rows = {row.layer: row for row in table.rows}
    assert (rows["conv1"].shape, str(rows["conv1"].bits)) == ((16, 3, 3, 3), "w4a32")
    assert rows["conv1"].activation_range is rows["conv1"].activation_sqnr is None
    assert rows["layer1.0.conv1"].weight_range is rows["layer1.0.conv1"].weight_sqnr is None
    assert rows["linear"][4:8] == (None, None, None, None)
    weight = quantized.conv1.parametrizations.weight.original
    assert rows["conv1"].weight_range == pytest.approx((weight.min().item(), weight.max().item()), rel=0.1)
    low, high = rows["layer1.0.conv1"].activation_range
    assert low == 0 < high
    assert 10 < rows["conv1"].weight_sqnr < 30 < rows["layer1.0.conv1"].activation_sqnr < 45


def test_more_bits_less_noise():
    """About 6 dB a bit."""
    coarse, fine = (described("cifar_resnet20", Bits(bits, bits))[1].rows[5] for bits in (4, 7))
    assert fine.weight_sqnr - coarse.weight_sqnr == pytest.approx(18, abs=3)
    assert fine.activation_sqnr - coarse.activation_sqnr == pytest.approx(18, abs=5)


def test_what_a_weight_has_learned_is_noise_too():
    """By hand: a weight that ends at half of what it was is off by half of itself, 6 dB, though it lies on levels."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.constant_(network[0].weight, 1.0)
    quantized = quantize(network, Bits(8, 32), Scheme("minmax"), InputSpace(1, (2, 2), (0.0,), (1.0,)))
    with torch.no_grad():
        quantized[0].parametrizations.weight.original.mul_(0.5)
    (row,) = describe_layers(network, quantized, torch.zeros(1, 1, 2, 2), Scheme("minmax")).rows
    assert row.weight_sqnr == pytest.approx(20 * math.log10(2), abs=0.1)


def test_it_is_written_and_drawn(tmp_path):
    _, table = described("cifar_resnet20", Bits(4, 4))
    table.write(tmp_path / "layers.csv")
    lines = list(csv.DictReader((tmp_path / "layers.csv").open()))
    assert len(lines) == 21
    assert lines[0]["layer"] == "conv1"
    assert lines[0]["shape"] == "16x3x3x3"
    assert lines[0]["bits"] == "w4a8"
    assert sum(int(line["size"]) for line in lines) == table.size
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1)
    console = Console(file=io.StringIO(), width=80)
    console.print(table.draw())
    text = console.file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "16×3×3×3" in text
    assert "layer3.2.conv2" in text


@pytest.mark.parametrize("scheme", [Scheme(), Scheme("lsq", "symmetric", "per-tensor", "lsq")], ids=str)
def test_what_is_all_zero_has_a_range_of_zero(scheme):
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        network[0].weight.zero_()
        network[2].weight[0] = 0
        network[2].weight[1] = 0.5
    images = torch.randn(2, 1, 4, 4)
    quantized = quantize(network, Bits(4, 4), scheme)
    calibrate(quantized, [images])
    first, second, third = describe_layers(network, quantized, images, scheme).rows
    assert first.weight_range == second.activation_range == (0, 0)
    assert third.weight_range[1] == pytest.approx(0.5, rel=0.2)
