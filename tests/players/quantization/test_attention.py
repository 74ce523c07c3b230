"""nn.MultiheadAttention as linear layers: the same function, and layers like any others."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import parametrizations

from tests.strategies import seeds
from zerosum.players import Bits, InputSpace, Scheme, assign_bits, calibrate, describe_layers, quantize, separated
from zerosum.players.quantization import layer_bits, load_packed, packed_state, quantizable_layers
from zerosum.players.quantization.attention import SeparateAttention

SPACE = InputSpace(3, (8, 8), (0.5,) * 3, (0.5,) * 3)
NEAR = {"rtol": 0, "atol": 1e-5}


class Tokens(nn.Module):
    """A network with transformer layers; images (N, 3, 8, 8) → (N, 5), by four tokens of 8 numbers."""

    def __init__(self, batch_first=True, layers=1, **options):
        super().__init__()
        self.stem, self.batch_first = nn.Conv2d(3, 8, 4, 4), batch_first
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, **options)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=batch_first)
        self.head = nn.Linear(8, 5)
        randomize(self)

    def forward(self, images):
        x = self.stem(images).flatten(2).mT
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


def randomize(network):
    """Biases of attention begin as zeros, and layers of an encoder as one another's copies."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)


@st.composite
def calls(draw):
    """An nn.MultiheadAttention of any options, and what it is called with; every query may attend to the first key."""
    torch.manual_seed(draw(seeds))
    yes, own, heads = st.booleans(), draw(st.booleans()), draw(st.sampled_from([1, 2, 4]))
    same = own and draw(yes)
    attention = nn.MultiheadAttention(
        *(8, heads, 0.3, draw(yes)),  # dropout, bias
        add_bias_kv=draw(yes),
        add_zero_attn=draw(yes),
        kdim=None if own else 5,
        vdim=draw(st.sampled_from([None, 8])) if own else 6,
        batch_first=draw(yes),
    )
    randomize(attention)
    images, queries, keys = (draw(st.integers(1, most)) for most in (3, 5, 5))
    batched = draw(yes)
    keys = queries if same else keys
    query, key = torch.randn(images, queries, 8), torch.randn(images, keys, attention.kdim)
    value = torch.randn(images, keys, attention.vdim)
    if not batched:
        images, query, key, value = 1, query[0], key[0], value[0]
    elif not attention.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    if same:
        key = value = query
    given = {"need_weights": draw(yes), "average_attn_weights": draw(yes)}
    shape = draw(st.sampled_from([None, (queries, keys), (images * heads, queries, keys), "causal"]))
    boolean = draw(yes)
    if shape == "causal":
        given |= {"attn_mask": torch.ones(queries, keys, dtype=torch.bool).triu(1), "is_causal": True}
    elif shape is not None:
        given["attn_mask"] = draw_mask(shape)
    if draw(yes):
        given["key_padding_mask"] = draw_mask((images, keys) if batched else (keys,))
    if not boolean:
        given |= {name: added(mask) for name, mask in given.items() if name.endswith("mask")}
    return attention.eval(), (query, key, value), given


def draw_mask(shape):
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = False
    return mask


def added(mask):
    return torch.randn(mask.shape).masked_fill(mask, -torch.inf)


@given(calls())
def test_it_is_the_same_function(call):
    attention, inputs, options = call
    ours = separated(attention)
    assert isinstance(ours, SeparateAttention)
    for graph in (True, False):  # torch has a kernel of its own for where there is none
        with torch.set_grad_enabled(graph):
            (expected, weights), (found, found_weights) = attention(*inputs, **options), ours(*inputs, **options)
        torch.testing.assert_close(found, expected, **NEAR)
        assert found.is_contiguous() or not expected.is_contiguous()  # whoever takes a view of it
        assert (weights is None) == (found_weights is None)
        if weights is not None:
            torch.testing.assert_close(found_weights, weights, **NEAR)


def test_in_training_it_drops_what_torchs_drops():
    attention, x = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), torch.randn(2, 4, 8)
    ours = separated(attention)
    for options in ({"need_weights": True}, {"need_weights": False}):
        torch.manual_seed(1)
        expected = attention(x, x, x, **options)[0]
        torch.manual_seed(1)
        torch.testing.assert_close(ours(x, x, x, **options)[0], expected, **NEAR)
        assert not torch.allclose(expected, separated(attention).eval()(x, x, x)[0])


def test_a_causal_hint_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="is_causal without attn_mask"):
        separated(nn.MultiheadAttention(8, 2))(*[torch.randn(4, 2, 8)] * 3, is_causal=True)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}, {"bias": False}], ids=str)
def test_transformers_are_the_same_function(batch_first, options):
    x, network = torch.randn(3, 4, 8), nn.Transformer(8, 2, 2, 2, 16, batch_first=batch_first, **options).eval()
    randomize(network)
    for graph in (True, False):
        with torch.set_grad_enabled(graph):
            torch.testing.assert_close(separated(network)(x, x), network(x, x), **NEAR)


def test_padded_sequences_are_encoded_alike():
    encoder = Tokens().encoder.eval()
    x, padding = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
    with torch.no_grad():  # where torch leaves the padding out: nested tensors
        expected, found = (network(x, src_key_padding_mask=padding) for network in (encoder, separated(encoder)))
    torch.testing.assert_close(found[~padding], expected[~padding], **NEAR)


@pytest.mark.parametrize("bits", [Bits(3, 32), Bits(32, 3)], ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_projection_is_rounded_in_eval_mode_too(bits, batch_first):
    network, images = Tokens(batch_first).eval(), torch.randn(4, 3, 8, 8)
    name = "encoder.layers.0.self_attn."
    projections = [f"{name}{which}_proj" for which in ("q", "k", "v", "out")]
    assert list(quantizable_layers(network))[1:5] == projections
    assigned = assign_bits(network, Bits(32, 32), [f"{name}*={bits}"], space=SPACE)
    with torch.no_grad():
        outputs = [network(images)]
        for projection in projections:
            quantized = quantize(network, {**dict.fromkeys(assigned, Bits(32, 32)), projection: bits})
            calibrate(quantized, [images])
            outputs.append(quantized(images))
    assert all(not torch.allclose(x, y) for i, x in enumerate(outputs) for y in outputs[:i])
    quantized = quantize(network, assigned)
    calibrate(quantized, [images])
    rows = {row.layer: row for row in describe_layers(network, quantized, images, Scheme()).rows}
    assert all((rows[name].weight_sqnr, rows[name].activation_sqnr) != (None, None) for name in projections)
    assert [rows[name].bits for name in projections] == [bits] * 4


def test_it_is_packed_and_loaded():
    network, images = Tokens(layers=2).eval(), torch.randn(4, 3, 8, 8)
    quantized = quantize(network, Bits(4, 4), space=SPACE)
    calibrate(quantized, [images])
    state = load(save(packed_state(quantized)))
    assert not [name for name in state if "in_proj" in name]
    loaded = load_packed(network, state, layer_bits(quantized), Scheme())
    assert torch.equal(loaded(images), quantized(images))
    assert torch.equal(copy.deepcopy(quantized)(images), quantized(images))


def test_what_it_adds_and_averages_inside_is_no_sum_of_the_network():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.register_buffer("masks", torch.randn(2 * 2, 4, 4))

        def forward(self, x):
            x, padding = x.flatten(2), torch.zeros(len(x), 4)
            masks = self.masks[: 2 * len(x)]
            return x + self.attention(x, x, x, attn_mask=masks, key_padding_mask=padding)[0]

    quantized = quantize(Attends(), Bits(32, 32), Scheme(sums="quantized"), SPACE._replace(channels=4, size=(2, 4)))
    assert quantized.sum_pattern == (("addition", True),)


def test_the_network_stays_as_it_was():
    network = Tokens().train()
    network.encoder.layers[0].self_attn.in_proj_bias.requires_grad_(False)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    ours = separated(network)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.state_dict().keys() == before.keys()
    assert type(network.encoder.layers[0].self_attn) is nn.MultiheadAttention
    assert network.encoder.use_nested_tensor
    attention = ours.encoder.layers[0].self_attn
    assert all(module.training for module in ours.modules())
    assert [p.requires_grad for p in attention.q_proj.parameters()] == [True, False]
    memory = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
    assert {tensor.untyped_storage().data_ptr() for tensor in ours.parameters()} == memory
    assert separated(ours) is ours
    assert separated(plain := nn.Linear(2, 2)) is plain


class Other(nn.MultiheadAttention):
    """Has another method, and computes the same."""

    def heads(self):
        return self.num_heads


class Reversed(nn.MultiheadAttention):
    def forward(self, query, key, value, **options):
        return super().forward(query.flip(0), key, value, **options)


def test_hooks_names_and_classes_stay_with_it():
    attention, seen, x = Other(8, 2), [], torch.randn(4, 2, 8)
    attention.register_forward_hook(lambda *_: seen.append(1))
    ours = separated(nn.ModuleDict({"one": attention, "other": attention}))
    assert ours["one"] is ours["other"]
    assert ours["one"].heads() == 2
    torch.testing.assert_close(ours["one"](x, x, x)[0], attention(x, x, x)[0], **NEAR)
    assert seen == [1, 1]
    assert copy.deepcopy(ours)["one"].heads() == 2


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Reversed, "Reversed"),
        (lambda *sizes: parametrizations.weight_norm(nn.MultiheadAttention(*sizes), "in_proj_weight"), "Parametrized"),
    ],
)
def test_attention_that_computes_otherwise_is_refused(make, name):
    network = nn.Sequential(nn.Linear(8, 8), make(8, 2))
    for refuse in (quantizable_layers, lambda network: quantize(network, Bits(8, 8))):
        with pytest.raises(ValueError, match=f"^1 is {name}.*, an nn.MultiheadAttention of its own kind"):
            refuse(network)
