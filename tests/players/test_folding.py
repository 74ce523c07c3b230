"""BatchNorm computed by the layer before it: the same values and gradients, and no trace behind it."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrize

from zerosum.players import Bits, InputSpace, calibrate, quantize
from zerosum.players.folding import behind_layers, folded
from zerosum.players.moments import AlignedMoments
from zerosum.players.quantization.scheme import Scheme

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
    """With how many layers have a BatchNorm behind them, and how many of those ReLU and a layer behind that."""
    torch.manual_seed(0)
    yield Biased(), 1, 0
    yield timm.create_model("mobilenetv2_050", num_classes=5), 52, 34
    yield timm.create_model("tf_efficientnet_lite0", num_classes=5), 49, 32
    resnet = timm.create_model("resnet18", num_classes=5)
    resnet.maxpool = nn.Identity()  # of levels times levels there are many that are equal
    yield resnet, 20, 8


@pytest.mark.parametrize("place", range(4))
def test_values_and_gradients_are_those_of_before(place):
    network, norms, rectified = [*networks()][place]
    network = random_statistics(network).double()
    behind = behind_layers(network, SPACE)
    assert len(behind) == norms
    assert sum(found.reader is not None for found in behind.values()) == rectified
    student = quantize(network, Bits.parse("w4a8"), Scheme(), SPACE)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    calibrate(student, [images])
    with AlignedMoments(network, images).of(student):
        assert_alike(student, behind, images, rectified)


def assert_alike(student, behind, images, rectified):
    keys, modules = student.state_dict().keys(), dict(student.named_modules()).keys()

    def computed():
        output = student(images)
        wanted = [p for p in student.parameters() if p.requires_grad]
        return output, torch.autograd.grad(output.square().mean(), wanted, allow_unused=True)

    before = computed()
    for readers in ((), [found.reader for found in behind.values() if found.reader]):
        with folded(student, behind, readers):
            torch.testing.assert_close(computed(), before, rtol=1e-7, atol=1e-9)
            assert len(readers) in (0, rectified)
            assert all(student.get_submodule(name).input_quantizer.between[0] == 0 for name in readers)
            assert all(student.get_submodule(name).input_quantizer.numbers()[0] == 1 for name in readers)
    assert student.state_dict().keys() == keys
    assert dict(student.named_modules()).keys() == modules
    torch.testing.assert_close(computed(), before, rtol=0, atol=0)


def test_a_layer_that_breaks_off_is_left_as_it_was():
    network = random_statistics(Biased())
    student = quantize(network, Bits.parse("w4a8"), Scheme(), SPACE)
    images = torch.randn(2, 3, 32, 32)
    calibrate(student, [images])
    before = student(images)
    with pytest.raises(RuntimeError), folded(student, behind_layers(network, SPACE)):
        student(images[:, :2])  # a channel short
    assert torch.equal(student(images), before)
    assert len(student.first.parametrizations.weight) == 1
    assert student.first.bias is dict(student.first.named_parameters())["bias"]


def test_full_precision_weights_and_networks_that_cannot_be_traced_are_left_alone():
    network = random_statistics(Biased())
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    with folded(network, behind_layers(network, SPACE)):
        assert torch.equal(network(images), before)
        assert not parametrize.is_parametrized(network.first)

    class Branching(Biased):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    assert behind_layers(Branching(), SPACE) == {}
