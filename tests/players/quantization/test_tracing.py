"""Which layers the network's own input enters, and which matrices are in none."""

import pytest
import torch
from torch import nn

from zerosum.players import Bits, InputSpace, assign_bits, load_backbone, quantizable_layers, quantize
from zerosum.players.quantization.tracing import find_ends

SPACE = InputSpace(2, (4, 4), (0.0, 0.0), (1.0, 1.0))


class HeadFirst(nn.Module):
    """Registers its head before the two stems that it has."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.right, self.left, self.mixing = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1), nn.Conv2d(5, 3, 1)
        self.table = nn.Parameter(torch.randn(1, 2, 4, 4))

    def forward(self, x):
        x = (x - 0.5) + self.table
        x[:, :1] = 2 * x[:, :1]
        left = self.left(input=x.flip(-1))
        return self.head(torch.cat([self.mixing(torch.cat([x, left], 1)), self.right(x)], 1).mean((2, 3)))


def test_the_input_keeps_8_bits_in_every_layer_that_it_enters():
    assigned = assign_bits(HeadFirst(), Bits(4, 4), space=SPACE)
    assert {name for name, bits in assigned.items() if bits.activation == 8} == {"left", "right"}
    assigned = assign_bits(HeadFirst(), Bits(4, 4), first_last=Bits(6, 6), space=SPACE)
    assert assigned == {"head": (6, 6), "right": (6, 8), "left": (6, 8), "mixing": (4, 4)}
    assert quantize(HeadFirst(), Bits(4, 4), space=SPACE).left.input_quantizer.bits == 8


def test_without_an_input_space_the_layer_that_is_held_first_is_taken():
    assigned = assign_bits(HeadFirst(), Bits(4, 4), first_last=Bits(5, 5))
    assert {name for name, bits in assigned.items() if bits != (4, 4)} == {"head", "mixing"}
    assert assigned["head"].activation == 8
    with pytest.raises(RuntimeError, match="must match the size"):
        assign_bits(HeadFirst(), Bits(4, 4), space=SPACE._replace(channels=3))


@pytest.mark.parametrize("name", ["digits_resnet8", "cifar_resnet20", "test_vit", "test_convnext", "test_nfnet"])
def test_of_known_networks_the_ends_are_those_that_they_hold_first_and_last(name):
    network = load_backbone(name, "random")
    layers = quantizable_layers(network)
    network.train()
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in network.state_dict().items()}
    assert find_ends(network, layers) == ([next(iter(layers))], list(layers)[-1])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in network.modules())


class OwnMatrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.mixing, self.table = nn.Conv2d(2, 2, 1), nn.Parameter(torch.randn(4, 4)), nn.Embedding(4, 4)

    def forward(self, x):
        return torch.matmul(self.layer(x), self.mixing.T) + self.table(torch.arange(4))


def test_matrices_outside_of_layers_are_warned_of():
    with pytest.warns(UserWarning, match="^mixing: matrices that the network multiplies with"):
        quantize(OwnMatrix(), Bits(4, 4), space=SPACE)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), "1 is an nn.LSTM"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.GRUCell(4, 4)), "1 is an nn.GRUCell"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 2)), "1 is an nn.Bilinear"),
        (lambda: nn.LSTM(4, 4), "the network is an nn.LSTM"),
    ],
)
def test_modules_with_matrices_that_would_stay_float_are_refused(network, message):
    with torch.device("meta"):
        network = network()
    for refuse in (quantizable_layers, lambda network: quantize(network, Bits(8, 8))):
        with pytest.raises(ValueError, match=message):
            refuse(network)
