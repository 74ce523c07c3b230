import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zerosum.players import Bits, assign_bits, load_backbone, quantizable_layers


@given(st.integers(2, 8) | st.just(32), st.integers(2, 8) | st.just(32))
def test_bits_are_read(weight, activation):
    assert Bits.parse(f"w{weight}a{activation}") == (weight, activation)
    assert Bits.parse(f" W{weight}A{activation} ") == (weight, activation)


@pytest.mark.parametrize("text", ["w0a4", "w4", "foo", "", "w4a1", "w9a4", "w4a17", "4w4a", "w4a4x", "w-4a4", "w4.5a4"])
def test_bad_bits_are_named(text):
    with pytest.raises(ValueError, match="bits"):
        Bits.parse(text)


@pytest.fixture(scope="module")
def resnet20():
    return load_backbone("cifar_resnet20", "random")


def test_all_layers_have_the_bits_and_the_networks_input_eight_or_more(resnet20):
    assigned = assign_bits(resnet20, Bits(3, 4))
    assert list(assigned) == list(quantizable_layers(resnet20))
    assert assigned.pop("conv1") == (3, 8)
    assert set(assigned.values()) == {(3, 4)}
    assert assign_bits(resnet20, Bits(4, 32))["conv1"] == (4, 32)
    assert assign_bits(resnet20, Bits(32, 8))["conv1"] == (32, 8)


def test_patterns_hold_against_all_else(resnet20):
    overrides = ["layer1.*=w8a8", "conv1=w2a2", "layer?.0.conv1=w8a8"]
    assigned = assign_bits(resnet20, Bits(3, 4), overrides, first_last=Bits(8, 8))
    assert assigned["conv1"] == (2, 2)  # asked for by name
    assert assigned["linear"] == (8, 8)
    assert {name for name, bits in assigned.items() if bits == (8, 8)} == {
        *(f"layer1.{block}.conv{conv}" for block in range(3) for conv in (1, 2)),
        *("layer2.0.conv1", "layer3.0.conv1", "linear"),
    }
    assert assigned["layer2.0.conv2"] == (3, 4)


def test_the_first_and_the_last_layer_alone(resnet20):
    assigned = assign_bits(resnet20, Bits(4, 4), first_last=Bits(8, 4))
    assert [name for name, bits in assigned.items() if bits != (4, 4)] == ["conv1", "linear"]
    assert (assigned["conv1"], assigned["linear"]) == ((8, 8), (8, 4))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layer9.*=w8a8"], r"'layer9.\*=w8a8': no layer is named so; nearest: .*layer"),
        (["qqq=w8a8"], "no layer is named so; layers: conv1, layer1.0.conv1, .* 14 more"),
        (["layer1.*=w4a4", "*.conv2=w5a4"], r"'layer1.\*=w4a4' and '\*.conv2=w5a4' disagree about layer1.0.conv2, "),
        (
            ["conv1=w9a4"],
            "'conv1=w9a4': .* of weights, 9 is neither 2 to 8 bits nor 32 .* layers: conv1, layer1.0.conv1",
        ),
        (["conv1=w4a1"], "of activations, 1 is neither 2 to 16 bits nor 32"),
        (["conv1"], "'conv1': expected PATTERN=w<bits>a<bits>, such as conv1=w8a8"),
    ],
)
def test_overrides_that_cannot_be_meant_are_refused_with_layers_offered(resnet20, overrides, message):
    with pytest.raises(ValueError, match=message):
        assign_bits(resnet20, Bits(4, 4), overrides)


def test_patterns_that_agree_may_overlap(resnet20):
    assert assign_bits(resnet20, Bits(4, 4), ["layer1.*=w5a5", "*.conv2=w5a5"])["layer1.0.conv2"] == (5, 5)


def test_nothing_to_quantize_is_refused():
    with pytest.raises(ValueError, match="no Conv and no Linear layer"):
        quantizable_layers(nn.Sequential(nn.ReLU()))
