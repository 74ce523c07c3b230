"""Programs in PT2E's operators: what they compute in PyTorch and in ExecuTorch, and in which kernels."""

import json

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from tests.players.export.test_onnx import calibrated
from zerosum import export
from zerosum.players import Bits, InputSpace, Scheme, assign_bits, calibrate, quantize
from zerosum.players.export.program import integer_network, trace
from zerosum.players.export.pt2e import broken_rules, pt2e_program
from zerosum.players.export.targets import TARGETS
from zerosum.players.quantization.quantizers import LogitsQuantizer
from zerosum.runs.run import main

pytest.importorskip("executorch")
from zerosum.players.export.pte_file import load_pte, save_pte


def scheme_of(bits, **others):
    return Scheme(**TARGETS["executorch"].scheme(Bits.parse(bits).weight) | others)


def integer_kernels(kernels):
    return sum(count for name, count in kernels.items() if "QC8" in name)


def lowered(quantized, images, folder):
    """What the program says in PyTorch and in ExecuTorch, its kernels, and what keeps layers from integers."""
    program = pt2e_program(integer_network(quantized, images[:2]), images)
    save_pte(program, path := folder / "network.pte")
    run, kernels = load_pte(path)
    with torch.no_grad():
        return (
            torch.cat([program.module()(image[None]) for image in images]),
            run(images),
            kernels,
            broken_rules(program),
        )


def stem():
    """What most residual networks begin with: a kernel, relu and the largest of four; then moves, and two grids."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), Branches(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 10)),
    )


class Branches(nn.Module):
    """Of one tensor, two convolutions, and one whose ends are cut."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = torch.relu(self.left(x) + x)
        return F.hardswish(self.last(self.right(x) + F.pad(x[:, :4], (0, 0, 0, 0, 2, 2))))


def quantized_copy(network, size, bits, scheme):
    channels = 1 if size == 8 else 3
    space = InputSpace(channels, (size, size), (0.0,) * channels, (1.0,) * channels)
    images = torch.randn(8, channels, size, size)
    quantized = quantize(network.eval(), assign_bits(network, Bits.parse(bits), space=space), scheme, space)
    calibrate(quantized, [images])
    return quantized, images


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["w8a8", "w4a8"])
def test_executorch_computes_every_layer_with_integers(bits, tmp_path):
    quantized, images = calibrated(bits, scheme_of(bits))
    in_pytorch, found, kernels, broken = lowered(quantized, images, tmp_path)
    with torch.no_grad():
        expected = quantized(images)
    (logits,) = (module for module in quantized.modules() if isinstance(module, LogitsQuantizer))
    one_level = 1.01 * logits.numbers()[0]  # of 128 or so; what is near a half is rounded either way
    assert (in_pytorch - expected).abs().max() < one_level
    assert (found - expected).abs().max() < one_level
    assert not broken
    assert integer_kernels(kernels) == 8
    assert not any(name.startswith(("Convolution", "Fully")) for name in kernels if "QC8" not in name)


@pytest.mark.parametrize(
    ("bits", "others", "options"),
    [
        ("w8a8", {}, set()),
        ("w5a8", {"weight_granularity": "per-tensor"}, set()),
        ("w3a4", {}, {"bits such as w4a8"}),
        ("w8a8", {"weight_grid": "asymmetric"}, {"--weight-grid symmetric"}),
        ("w8a8", {"sums": "float", "logits": "float"}, {"--logits quantized"}),
    ],
)
def test_what_breaks_a_rule_is_computed_right_all_the_same(bits, others, options, tmp_path):
    """XNNPACK's partitioner drops the DequantizeLinear in front of layers that it then leaves."""
    torch.manual_seed(0)
    scheme = scheme_of(bits, activation_range="percentile", **others)  # with which grids of one tensor differ
    quantized, images = quantized_copy(stem(), 8, bits, scheme)
    in_pytorch, found, kernels, broken = lowered(quantized, images, tmp_path)
    with torch.no_grad():
        expected = quantized(images)
    assert (in_pytorch - expected).norm() < 0.03 * expected.norm()
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert options | {"--sums quantized"} == {rule.option for rule in broken} | {"--sums quantized"}
    assert "3.last" in {rule.where for rule in broken}  # what leaves it is rounded behind hardswish
    assert integer_kernels(kernels) == 5 - len({rule.where for rule in broken})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "broken_layers"), [("resnet18", 0), ("test_efficientnet", None), ("test_resnet", 0)])
def test_networks_of_other_kinds(name, broken_layers, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10)
    quantized, images = quantized_copy(network, 64, "w8a8", scheme_of("w8a8"))
    in_pytorch, found, _, broken = lowered(quantized, images, tmp_path)
    with torch.no_grad():
        expected = quantized(images)
    assert (in_pytorch - expected).norm() < 0.03 * expected.norm()
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert broken_layers is None or len(broken) == broken_layers


def test_what_executorch_has_no_kernel_for_is_named(tmp_path):
    class Larger(nn.Module):
        def forward(self, x):
            return F.interpolate(x, size=4, mode="bicubic", antialias=True)

    network = nn.Sequential(nn.Conv2d(1, 4, 3), Larger(), nn.Flatten(), nn.Linear(64, 10))
    quantized, images = quantized_copy(network, 8, "w8a8", scheme_of("w8a8"))
    with pytest.raises(ValueError, match=r"no kernel for aten::_upsample_bicubic2d_aa\.out"):
        lowered(quantized, images, tmp_path)


def test_a_run_for_executorch(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["adasg", "--rounds", "0", "--bits", "w8a8", "--target", "executorch", "--out", str(run)]) == 0
    assert export.main([str(run), "--check", "digits"]) == 0
    assert "keeps the rules of ExecuTorch's XNNPACK" in capsys.readouterr().out
    written = json.loads((run / "export.json").read_text(encoding="utf-8"))
    assert (written["file"], written["target"], written["broken_rules"]) == ("quantized.pte", "executorch", [])
    assert written["agreement"] >= 99
    assert integer_kernels(written["kernels"]) == 8
    assert export.main([str(run), "--format", "pt2", "--check", "digits"]) == 0
    program = torch.export.load(run / "quantized.pt2")
    assert not broken_rules(program)
    assert {node.target.namespace for node in program.graph.nodes if node.op == "call_function"} == {
        *("aten", "quantized_decomposed")
    }
    assert export.main([str(run), "--format", "onnx"]) == 0  # for nobody in particular
    capsys.readouterr()
    assert export.main([str(run), "--format", "pte", "--target", "openvino"]) == 2
    assert "expected a file that ends in .onnx" in capsys.readouterr().err


def test_logits_are_rounded_to_one_grid_with_room_for_larger_ones():
    quantized, images = calibrated("w8a8", scheme_of("w8a8"))
    with torch.no_grad():
        logits = quantized(images)
        grid = quantized.linear.output_quantizer.grid()
    assert len(logits.unique()) <= 256
    assert torch.equal(grid.round(logits), logits)
    low, high = grid.range
    assert torch.allclose(torch.cat([low, high]), 3 * torch.stack(logits.aminmax()), atol=2 * grid.scale.item())
    plain, _ = calibrated("w8a8", scheme_of("w8a8", logits="float"))
    with torch.no_grad():
        assert (plain(images) - logits).abs().max() <= grid.scale / 2 + 1e-4


@pytest.mark.parametrize("bits", ["w4a16", "w8a12"])
def test_activations_of_more_than_8_bits_are_int16(bits, tmp_path, capsys):
    quantized, images = calibrated(bits, scheme_of(bits, sums="float", logits="float"))
    program = pt2e_program(integer_network(quantized, images[:2]), images)
    with torch.no_grad():
        found, expected = program.module()(images[:1]), quantized(images[:1])
    assert (found - expected).norm() < 1e-3 * expected.norm()
    assert {rule.option for rule in broken_rules(program)} >= {"bits such as w4a8"}
    run = tmp_path / "run"
    assert main(["adasg", "--rounds", "0", "--bits", bits, "--target", "executorch", "--out", str(run)]) == 0
    assert export.main([str(run)]) == 2
    assert f"XNNPACK takes activations of 8 bits, found {bits[3:]}" in capsys.readouterr().err
    assert export.main([str(run), "--format", "pt2"]) == 0


def test_a_program_of_one_image_has_no_dynamic_shape():
    quantized, images = calibrated("w8a8", scheme_of("w8a8"))
    assert not trace(integer_network(quantized, images[:2]), images[:1]).range_constraints
