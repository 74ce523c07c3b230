"""BatchNorm computed by the layer before it: the same values and gradients, and no trace behind it."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrize

from zerosum.players import Bits, InputSpace, calibrate, quantize
from zerosum.players.folding import folded, norms_behind_layers
from zerosum.players.moments import AlignedMoments
from zerosum.players.quantization.quantizers import Scheme

SPACE = InputSpace(3, (32, 32), (0.5,) * 3, (0.5,) * 3)


class Biased(nn.Module):
    """A layer with a bias, one whose output somebody else reads too, and a full-precision one."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8)
        self.second, self.other = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        y = self.second(x)
        return self.head((self.other(y) + y).mean((2, 3)))


def random_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3), nn.init.normal_(module.bias)
    return network.eval()


def networks():
    torch.manual_seed(0)
    yield Biased(), 1
    yield timm.create_model("mobilenetv2_050", num_classes=5), 52
    yield timm.create_model("tf_efficientnet_lite0", num_classes=5), 49


@pytest.mark.parametrize("place", range(3))
def test_values_and_gradients_are_those_of_before(place):
    network, count = [*networks()][place]
    network = random_statistics(network).double()
    norms = norms_behind_layers(network, SPACE)
    assert len(norms) == count
    student = quantize(network, Bits.parse("w4a8"), Scheme(), SPACE)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    calibrate(student, [images])
    with AlignedMoments(network, images).of(student):
        assert_alike(student, norms, images)


def assert_alike(student, norms, images):
    keys, modules = student.state_dict().keys(), dict(student.named_modules()).keys()

    def computed():
        output = student(images)
        wanted = [p for p in student.parameters() if p.requires_grad]
        return output, torch.autograd.grad(output.square().mean(), wanted, allow_unused=True)

    before = computed()
    with folded(student, norms):
        names = set(norms.values())
        silent = []
        for name, module in student.named_modules():
            if name in names:
                module.register_forward_hook(lambda m, args, output: silent.append(args[0].equal(output)))
        torch.testing.assert_close(computed(), before, rtol=1e-7, atol=1e-9)
        assert len(silent) == len(norms)
    assert student.state_dict().keys() == keys
    assert dict(student.named_modules()).keys() == modules
    torch.testing.assert_close(computed(), before, rtol=0, atol=0)


def test_a_layer_that_breaks_off_is_left_as_it_was():
    network = random_statistics(Biased())
    student = quantize(network, Bits.parse("w4a8"), Scheme(), SPACE)
    images = torch.randn(2, 3, 32, 32)
    calibrate(student, [images])
    before = student(images)
    with pytest.raises(RuntimeError), folded(student, norms_behind_layers(network, SPACE)):
        student(images[:, :2])  # a channel short
    assert torch.equal(student(images), before)
    assert len(student.first.parametrizations.weight) == 1
    assert student.first.bias is dict(student.first.named_parameters())["bias"]


def test_full_precision_weights_and_networks_that_cannot_be_traced_are_left_alone():
    network = random_statistics(Biased())
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    with folded(network, norms_behind_layers(network, SPACE)):
        assert torch.equal(network(images), before)
        assert not parametrize.is_parametrized(network.first)

    class Branching(Biased):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    assert norms_behind_layers(Branching(), SPACE) == {}
