import pytest
import torch
from hypothesis import given
from torch import nn

from tests.strategies import seeds
from zerosum.players import BatchNormTaps, Bits, PatchTaps, batchnorm_layers, load_backbone, quantize, separated


def test_moments_of_what_each_layer_was_given():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    taps = BatchNormTaps(network)
    for _ in range(2):  # taps are of the newest pass alone
        images = torch.randn(4, 2, 5, 5, requires_grad=True)
        taps.listen()
        network(images)
    batch_stats, running_stats = taps.take()
    assert taps.take() == ([], [])  # they would keep the graph of the round in memory
    assert len(batch_stats) == len(running_stats) == 2
    mean, variance = batch_stats[0]
    torch.testing.assert_close(mean, images.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(variance, images.var(dim=(0, 2, 3), unbiased=False))
    inner = network[1](network[0](images))
    torch.testing.assert_close(batch_stats[1][0], inner.mean(dim=(0, 2, 3)))
    assert running_stats[1][0] is network[2].running_mean
    (gradient,) = torch.autograd.grad(batch_stats[1][1].sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 7), (4, 3, 5, 6), (2, 3, 4, 3, 2)])
@given(seeds)
def test_moments_have_the_first_and_second_derivatives_of_var_mean(shape, seed):
    torch.manual_seed(seed)
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3)
    network = nn.Sequential(layer.double()).eval()
    taps = BatchNormTaps(network)
    x = (100 * torch.randn(1, 3, *[1] * (len(shape) - 2)) + torch.randn(shape)).double()
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()

    def derivatives(mean, variance):
        towards = torch.arange(1.0, 4).double()
        (first,) = torch.autograd.grad((mean * towards + variance.square()).sum(), x, create_graph=True)
        return mean, variance, first, *torch.autograd.grad((first * x.detach().cos()).sum(), x)

    taps.listen()
    network(x)
    (found,), _ = taps.take()
    variance, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
    torch.testing.assert_close(derivatives(*found), derivatives(mean, variance), rtol=1e-9, atol=1e-9)


def test_a_network_without_batchnorm_is_refused():
    assert not batchnorm_layers(load_backbone("test_vit", "random"))
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        BatchNormTaps(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


@pytest.mark.parametrize(
    ("name", "size", "blocks", "patches"),
    [
        ("test_vit", 160, 6, 50),  # 100 patches and a class token: every second patch
        ("swin_tiny_patch4_window7_224", 224, 12, 49),  # attention in windows
        ("test_convnext", 64, 0, 64),  # no attention: what LayerNorm layers are given
    ],
)
def test_patches_of_networks_without_batchnorm(name, size, blocks, patches):
    network = load_backbone(name, "random")
    taps = PatchTaps(network)
    for _ in range(2):
        images = torch.randn(2, 3, size, size, requires_grad=True)
        taps.listen()
        with torch.set_grad_enabled(True):
            network(images)
    found = taps.take()
    if blocks:
        assert len(found) == blocks
    assert len(found) >= 4
    assert found[0].shape[1] == patches
    assert all(tensor.ndim == 3 and tensor.shape[1] <= 64 for tensor in found)
    (gradient,) = torch.autograd.grad(sum(tensor.sum() for tensor in found), images)
    assert gradient.abs().sum() > 0
    assert taps.take() == []


class Attention(nn.Module):
    num_heads = 1

    def forward(self, x):
        return x, None


def test_patches_are_the_outputs_of_attention_without_the_class_token():
    network = nn.Sequential(nn.LayerNorm(4), Attention())
    network.num_prefix_tokens = 1
    taps = PatchTaps(network)
    x = torch.randn(2, 6, 4)
    taps.listen()
    network(x)
    (patches,) = taps.take()
    torch.testing.assert_close(patches, network[0](x)[:, 1:])


def test_patches_of_feature_maps_have_their_channels_last():
    network = nn.Sequential(nn.GroupNorm(1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(3))
    taps = PatchTaps(network)
    x = torch.randn(2, 3, 4, 5)
    taps.listen()
    network(x)
    (patches,) = taps.take()  # what the LayerNorm is given has no patches any more
    assert torch.equal(patches, x.flatten(2).mT)


def test_patches_of_attention_are_of_an_image_each_in_either_order():
    x, taken = torch.randn(3, 6, 8), []
    for batch_first in (True, False):
        torch.manual_seed(1)
        network = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=batch_first)
        for attends in (network, separated(network)):
            taps = PatchTaps(attends)
            taps.listen()
            attends(x if batch_first else x.transpose(0, 1))
            taken += taps.take()
    assert len(taken) == 4
    assert taken[0].shape == (3, 6, 8)
    for other in taken[1:]:
        torch.testing.assert_close(other, taken[0])


def test_a_network_with_nothing_to_tap_is_refused():
    with pytest.raises(ValueError, match="no attention, no LayerNorm and no GroupNorm"):
        PatchTaps(nn.Sequential(nn.Linear(2, 2)))


def hooks(network):
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize(
    ("taps", "network"),
    [
        (BatchNormTaps, lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))),
        (PatchTaps, lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4))),
        (PatchTaps, lambda: nn.Sequential(nn.Linear(3, 4), Attention())),
        (PatchTaps, lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(9, 3, 4, batch_first=True))),
    ],
)
def test_taps_are_removed_and_a_quantized_copy_has_none(taps, network):
    network = network()
    network.register_forward_hook(lambda module, args, output: None)  # somebody else's
    tapped, images = taps(network), torch.randn(2, 3, 3, 3, requires_grad=True)
    tapped.listen()
    network(images)  # what the taps hold is in a graph
    quantized = quantize(network, Bits(4, 32))
    assert hooks(quantized) == 1
    assert hooks(network) > 1
    quantized(images)
    taken = tapped.take()
    assert len(taken[0]) > 0
    network(images)  # nobody listens
    assert len(tapped.take()[0] if taps is BatchNormTaps else tapped.take()) == 0
    tapped.remove()
    tapped.remove()
    assert hooks(network) == 1
    tapped.listen()
    network(images)
    assert len(tapped.take()[0] if taps is BatchNormTaps else tapped.take()) == 0


def test_layers_called_by_keyword_are_tapped():
    class Keyword(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(input=x)

    network, x = Keyword(nn.BatchNorm2d(2)), torch.randn(2, 2, 3, 3)
    taps = BatchNormTaps(network)
    taps.listen()
    network(x=x)
    torch.testing.assert_close(taps.take()[0][0][0], x.mean(dim=(0, 2, 3)))
    network = Keyword(nn.GroupNorm(1, 2))
    patches = PatchTaps(network)
    patches.listen()
    network(x)
    assert torch.equal(patches.take()[0], x.flatten(2).mT)
