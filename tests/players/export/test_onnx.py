"""ONNX files: what is stored in them, and what ONNX Runtime computes with it."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from benchmarks.export import FAMILIES, check
from zerosum.players import (
    Architecture,
    Bits,
    Scheme,
    assign_bits,
    calibrate,
    input_space,
    label_names,
    layer_bits,
    load_backbone,
    quantize,
)
from zerosum.players.export.onnx_file import describe_input, load_onnx, save_onnx
from zerosum.players.export.program import integer_network, trace
from zerosum.players.export.targets import SMALL
from zerosum.players.storage import Description

keeps_batchnorm = pytest.mark.skipif(torch.__version__.startswith("2.6"), reason="its exporter fails on BatchNorm")
INTEGER = Scheme(weight_range="pairwise", weight_grid="symmetric", sums="quantized")


def described(quantized, name, scheme=Scheme()):  # noqa: B008 (frozen)
    return Description(Architecture("timm", name), layer_bits(quantized), scheme, input_space(quantized))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network, exported as asked: the quantized network, images, the file, which are nobody's to change."""
    made = {}

    def export(*asked):
        if asked not in made:
            made[asked] = save(tmp_path_factory.mktemp("exported"), *asked)
        return made[asked]

    return export


def calibrated(bits, scheme, name="digits_resnet8", change=lambda network: None):
    """A small quantized network, and images."""
    torch.manual_seed(0)
    network = load_backbone(name, "random", num_classes=10)
    change(network)
    images = torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        for _ in range(50):  # running statistics that are the network's own
            network.train()(torch.randn(64, 1, 8, 8))
        network.eval()
    quantized = quantize(network, assign_bits(network, Bits.parse(bits)), scheme)
    calibrate(quantized, [images])
    return quantized, images


def save(folder, bits, scheme, opset=21, name="digits_resnet8", change=lambda network: None, layout=SMALL):
    quantized, images = calibrated(bits, scheme, name, change)
    program = trace(integer_network(quantized, images[:2]), images[:2])
    path = folder / "quantized.onnx"
    save_onnx(program, quantized, described(quantized, name, scheme), opset, path, layout=layout)
    return quantized, images, path


def stored(path):
    """Of each layer's weight, the integers, their type, and the zero points."""
    nodes = [node for node in ir.load(path).graph if node.op_type == "DequantizeLinear"]
    weights = [node.inputs for node in nodes if node.inputs[0].name.endswith(".weight")]
    return [
        (levels.const_value.numpy().astype(int), levels.dtype, zero_point.const_value.numpy().astype(int))
        for levels, _, zero_point in weights
    ]


@pytest.mark.parametrize(
    ("bits", "scheme"),
    [
        ("w2a8", Scheme()),
        ("w3a8", Scheme(weight_grid="symmetric", weight_granularity="per-tensor")),
        ("w4a3", Scheme(activation_grid="symmetric")),
        ("w5a8", Scheme("lsq", "symmetric", activation_range="lsq")),
        ("w8a8", Scheme()),
        ("w8a8", Scheme(weight_grid="symmetric", sums="quantized")),
        ("w8a8", INTEGER),
        pytest.param("w32a8", Scheme(), marks=keeps_batchnorm),
        ("w8a32", Scheme()),
    ],
    ids=str,
)
def test_onnx_runtime_computes_the_quantized_network(exported, bits, scheme):
    quantized, images, path = exported(bits, scheme)
    run, _ = load_onnx(path)
    with torch.no_grad():
        expected = quantized(images)
    found = run(images)
    assert (found.argmax(1) == expected.argmax(1)).double().mean() >= 0.95
    assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(("bits", "dtype"), [(2, "INT4"), (4, "INT4"), (5, "INT8"), (7, "INT8"), (8, "UINT8")])
def test_integers_are_as_small_as_their_bits(exported, bits, dtype):
    _, _, path = exported(f"w{bits}a8", Scheme())
    for levels, found, _ in stored(path):
        assert found == ir.DataType[dtype]
        low = 0 if dtype == "UINT8" else -(2 ** (bits - 1))
        assert levels.min() >= low
        assert levels.max() <= low + 2**bits - 1
        assert len(np.unique(levels)) <= 2**bits


def test_before_opset_21_there_are_no_integers_of_four_bits(exported):
    quantized, images, path = exported("w4a8", Scheme(), 18)
    assert {found for _, found, _ in stored(path)} == {ir.DataType.INT8}
    torch.testing.assert_close(load_onnx(path)[0](images), quantized(images).detach(), rtol=0, atol=0.05)


def test_activations_keep_to_their_own_range(exported, tmp_path):
    _, images, path = exported("w4a3", Scheme(activation_grid="symmetric"))
    model = onnx.load(path)
    quantized = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    clipped = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Clip"}
    assert len(clipped) == len(quantized) - 1  # the network's own input has 8 bits
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in clipped.values())
    onnx.save(model, tmp_path / "levels.onnx")
    _, *levels = onnxruntime.InferenceSession(tmp_path / "levels.onnx").run(None, {"images": images.numpy()})
    assert all(tensor.dtype == np.uint8 and tensor.max() <= 7 for tensor in levels)


def test_the_integer_scheme_runs_in_integers_from_end_to_end(exported):
    _, _, path = exported("w8a8", INTEGER)
    _, kernels = load_onnx(path)
    assert kernels["QLinearConv"] == 7
    assert kernels["QGemm"] == 1
    assert "Conv" not in kernels
    assert "FusedConv" not in kernels
    for levels, dtype, zero_point in stored(path):
        assert dtype == ir.DataType.INT8
        assert not zero_point.any()
        rows = np.moveaxis(levels, 1, -1).reshape(len(levels), -1)
        assert np.abs(rows[:, 1:] + rows[:, :-1]).max() * 255 < 2**15


def test_weights_that_would_overflow_are_kept_from_such_kernels(exported):
    _, _, path = exported("w8a8", Scheme(weight_grid="symmetric", sums="quantized"))
    assert {dtype for _, dtype, _ in stored(path)} == {ir.DataType.UINT8}
    assert "QLinearConv" not in load_onnx(path)[1]


@pytest.mark.parametrize("padded", [False, True])
def test_a_bias_far_beyond_its_weights_is_kept(padded, tmp_path):
    """Rounded to int32 in steps of the weights' scale it would not fit."""

    def almost_dead(network):
        if padded:  # by an operation of its own
            network.conv1 = Conv2dSame(1, 8, 3, bias=False)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data[::2], module.bias.data[::2] = 1e-9, 3.0
                module.bias.data[::4] = -3.0

    quantized, images, path = save(tmp_path, "w8a8", INTEGER, change=almost_dead)
    run, kernels = load_onnx(path)
    assert kernels["QLinearConv"] == 7
    with torch.no_grad():
        expected = quantized(images)
    assert (run(images) - expected).norm() < 0.02 * expected.norm()


def test_the_file_says_what_it_takes(exported):
    _, images, path = exported("w4a8", Scheme())
    model = ir.load(path)
    about = model.metadata_props
    assert (about["mean"], about["std"], about["size"], about["resize"]) == ("0.306", "0.376", "8 8", "8")
    assert about["backbone"] == "digits_resnet8"
    assert about["bits"].startswith("conv1=w4a8 ")
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["images", "logits"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph)
    run, _ = load_onnx(path)
    assert run(images[:1]).shape == (1, 10)
    assert run(images[:7]).shape == (7, 10)


def test_timms_attention_is_exported(tmp_path):
    quantized, images, path = save(
        tmp_path,
        "w8a8",
        Scheme(),
        name="digits_vit",
        change=lambda network: nn.init.normal_(network.head.weight, std=0.2),
    )
    with torch.no_grad():
        expected = quantized(images)
    assert (load_onnx(path)[0](images) - expected).norm() < 0.02 * expected.norm()


def test_a_family_is_exported():
    row = check("efficientnet", FAMILIES["efficientnet"])
    assert row.reason == ""
    assert row.distance <= row.rounding


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_page_is_exported(family):
    assert check(family, FAMILIES[family]).reason == ""


@pytest.mark.slow
def test_what_onnx_has_no_words_for_is_named(tmp_path):
    network = timm.create_model("tf_efficientnet_cc_b0_4e", pretrained=False).eval()
    quantized, images = quantize(network, Bits(8, 8)), torch.randn(2, 3, 64, 64)
    calibrate(quantized, [images])
    description = described(quantized, "tf_efficientnet_cc_b0_4e")
    with pytest.raises(ValueError, match=r"cannot be written as ONNX: torch\.ops\.aten\.conv2d\.default: "):
        save_onnx(trace(integer_network(quantized, images), images), quantized, description, 21, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_only_networks_of_imagenet_carry_its_classes():
    """As timm's config says: a thousand classes of others are not its."""
    cases = [
        ("resnet18.a1_in1k", {}, True, True),
        ("resnet18.a1_in1k", {}, False, False),  # weights out of a file, of whatever it was trained on
        ("resnet18.a1_in1k", {"label_names": ["own"]}, True, False),
        ("resnet18.a1_in1k", {"num_classes": 5}, True, False),  # the head is another
        ("cifar_resnet20", {}, True, False),
        ("resmlp_12_224.fb_dino", {}, True, False),  # trained without labels
    ]
    for name, changes, published, expected in cases:
        network = load_backbone(name, "random", num_classes=1000)
        network.pretrained_cfg = network.pretrained_cfg | changes
        architecture = Architecture("timm", name, {"num_classes": 1000})
        description = Description(architecture, {}, Scheme(), input_space(network), label_names(network))
        found = describe_input(network, description, published).get("classes", "")
        assert found.startswith("n01440764\n") == expected, (name, changes, published)
