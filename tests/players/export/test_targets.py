"""Files for a runtime: the layout that it demands, what it computes of them, and which rules a file breaks."""

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from tests.players.export.test_onnx import save
from zerosum import export
from zerosum.players import Bits, Scheme
from zerosum.players.export.onnx_file import load_onnx
from zerosum.players.export.onnx_weights import overflows
from zerosum.players.export.rules import broken_rules
from zerosum.players.export.signed import around_0
from zerosum.players.export.targets import TARGETS
from zerosum.recipes import adasg
from zerosum.runs.options import decode, encode
from zerosum.runs.run import main

OF_ONNX = [target for target, about in TARGETS.items() if "onnx" in about.formats]


def scheme_of(target, bits, **others):
    return Scheme(**TARGETS[target].scheme(Bits.parse(bits).weight) | others)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    made = {}

    def export(bits, target, **others):
        key = (bits, target, *others.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("exported")
            made[key] = save(folder, bits, scheme_of(target, bits, **others), layout=TARGETS[target].layout)
        return made[key]

    return export


@pytest.mark.parametrize("bits", ["w8a8", "w6a8", "w4a8", "w3a4", "w4a16", "w8a12"])
@pytest.mark.parametrize("target", OF_ONNX)
def test_a_file_for_a_runtime_computes_the_network_and_keeps_its_rules(target, bits, exported):
    quantized, images, path = exported(bits, target)
    run, kernels = load_onnx(path)
    with torch.no_grad():
        expected = quantized(images)
    assert (run(images) - expected).norm() < 0.02 * expected.norm()
    broken = {rule.option for rule in broken_rules(path, target)}
    narrow, wide = bits == "w3a4" and target != "tensorrt", int(bits[3:]) > 8
    if wide:
        assert "bits such as w8a8" in broken
    else:
        assert broken == ({"bits such as w4a8"} if narrow else set())
    if target == "onnxruntime" and not (narrow or wide):
        assert kernels["QLinearConv"] == 7
        assert "Conv" not in kernels


@pytest.mark.parametrize("bits", ["w8a8", "w2a3"])
def test_tensorrt_finds_signed_integers_with_zero_point_0(bits, exported):
    """What its documentation and the parser of its ONNX files ask for, read with nothing of ours."""
    graph = onnx.load(exported(bits, "tensorrt")[2]).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    seen = 0
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            assert values[node.input[0]].dtype == np.int8
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            assert values[node.input[1]].shape in ((), (values[node.input[0]].shape[axis],))
            seen += 1
        elif node.op_type == "DequantizeLinear":
            assert makers[node.input[0]].op_type == "QuantizeLinear"
    assert seen == 8
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 8
    assert all(values[name].dtype == np.float32 for node in layers for name in node.input[2:])


@pytest.mark.parametrize("target", OF_ONNX)
def test_a_symmetric_grid_that_batchnorm_mirrored_has_its_zero_at_0(target, tmp_path):
    def mirror(network):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, -1.5, 1.5)

    scheme = scheme_of(target, "w8a8")
    quantized, images, path = save(tmp_path, "w8a8", scheme, layout=TARGETS[target].layout, change=mirror)
    assert not broken_rules(path, target)
    with torch.no_grad():
        expected = quantized(images)
    assert (load_onnx(path)[0](images) - expected).norm() < 0.02 * expected.norm()


@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_zero_is_moved_to_0_exactly(bits, seed):
    chance = np.random.default_rng(seed)
    levels, zero_point = (chance.integers(0, 2**bits, shape).astype(np.int16) for shape in ((3, 5), (3, 1)))
    scale = chance.uniform(1e-6, 1, (3, 1)).astype(np.float32)
    moved, origin, finer = around_0(levels, zero_point, scale, bits)
    assert not origin.any()
    assert np.array_equal(finer * moved.astype(np.float32), scale * (levels - zero_point).astype(np.float32))
    assert np.abs(moved).max() <= 127
    assert bits == 7 or not overflows(moved)


@pytest.mark.parametrize(
    ("target", "others", "where", "option"),
    [
        ("tensorrt", {"activation_grid": "asymmetric"}, "what enters conv1", "--activation-grid symmetric"),
        ("tensorrt", {"weight_grid": "asymmetric"}, "conv1", "--weight-grid symmetric"),
        ("openvino", {"weight_grid": "asymmetric", "weight_range": "mse"}, "conv1", "--weight-grid symmetric"),
        ("onnxruntime", {"weight_range": "minmax"}, "conv1", "--weight-range pairwise"),
        ("openvino", {"weight_range": "minmax"}, "conv1", "--weight-range pairwise"),
    ],
)
def test_a_broken_rule_names_the_layer_and_the_option(target, others, where, option, exported):
    broken = broken_rules(exported("w8a8", target, **others)[2], target)
    assert {rule.option for rule in broken} == {option}
    assert where in [rule.where for rule in broken]


@pytest.mark.parametrize("bits", ["w8a8", "w4a8"])
@pytest.mark.parametrize("target", ["openvino", "tensorrt"])  # who take the same from these files
def test_openvino_computes_every_layer_with_integers(target, bits, exported):
    openvino = pytest.importorskip("openvino")
    quantized, images, path = exported(bits, target)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = torch.from_numpy(compiled([images.numpy()])[0])
    with torch.no_grad():
        expected = quantized(images)
    assert (found - expected).norm() < 0.02 * expected.norm()
    layers = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in layers]
    precisions = [precision for kind, precision in kinds if kind in ("Convolution", "FullyConnected", "MatMul")]
    assert len(precisions) == 8
    assert set(precisions) <= {"u8", "i8"}


def test_a_run_for_a_target_has_its_scheme_and_is_exported_for_it(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["adasg", "--rounds", "0", "--bits", "w8a8", "--target", "tensorrt", "--out", str(run)]) == 0
    assert export.main([str(run)]) == 0
    written = json.loads((run / "export.json").read_text(encoding="utf-8"))
    assert (written["target"], written["broken_rules"]) == ("tensorrt", [])
    assert "keeps the rules of TensorRT" in capsys.readouterr().out
    assert export.main([str(run), "--target", "onnxruntime"]) == 1
    assert "conv1: its weight is in uint8, expected int8 (--weight-range pairwise)" in capsys.readouterr().out
    assert export.main([str(run), "--target", "tensorrt", "--format", "pt2"]) == 2
    assert "--target tensorrt: " in capsys.readouterr().err


def test_a_file_that_breaks_rules_says_so_by_its_exit_code(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["adasg", "--rounds", "0", "--bits", "w8a8", "--out", str(run)]) == 0
    assert export.main([str(run), "--target", "openvino"]) == 1
    said = capsys.readouterr().out
    assert "breaks rules of OpenVINO for integer kernels; what it computes in float32:" in said
    assert "--target openvino (--sums quantized --weight-grid symmetric --weight-range pairwise) keeps them" in said
    assert json.loads((run / "export.json").read_text(encoding="utf-8"))["broken_rules"]


@pytest.mark.parametrize("bits", ["w8a8", "w4a8"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_sets_what_nobody_asked_otherwise(target, bits):
    config = adasg.Config(target=target, bits=bits)
    config.check()
    assert config.scheme == scheme_of(target, bits)
    assert decode(adasg.Config, encode(config)) == config
    other = adasg.Config(target=target, bits=bits, scheme=Scheme(weight_range="percentile"))
    if bits == "w8a8" and target not in ("tensorrt", "executorch"):
        with pytest.raises(ValueError, match=f"--target {target} --weight-range percentile: expected pairwise"):
            other.check()
    else:
        other.check()
        assert other.scheme.weight_range == "percentile"


def test_one_layer_of_8_bits_wants_the_grid_for_it():
    for options in ({"first_last_bits": "w8a8"}, {"layer_bits": ("conv1=w8a8",)}):
        config = adasg.Config(target="openvino", bits="w4a8", **options)
        assert config.scheme == scheme_of("openvino", "w8a8")
