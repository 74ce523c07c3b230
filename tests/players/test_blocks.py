"""Any network is cut into blocks, each layer in one of them, and what goes through them is what goes through it."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._pytree import tree_leaves

from zerosum.players import InputSpace, input_space, quantizable_layers
from zerosum.players import small_resnets as small_resnets  # with timm
from zerosum.players.blocks import find_blocks
from zerosum.players.recording import chained_inputs, record_inputs, record_output, rows_of, run_block

SPACE = InputSpace(3, (16, 16), (0.5,) * 3, (0.5,) * 3)


def names(network, space=None):
    return [block.name for block in find_blocks(network, space).blocks]


def test_residual_blocks_are_blocks_and_stem_and_head_are_alone():
    network = timm.create_model("cifar_resnet20")
    stages = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert names(network) == ["conv1 … bn1", *stages, "linear"]


def test_inverted_residuals_are_blocks_with_a_residual_and_without():
    found = find_blocks(timm.create_model("tf_efficientnet_lite0"))
    assert [block.name for block in found.blocks[:3]] == ["conv_stem … bn1", "blocks.0.0", "blocks.1.0"]
    assert [block.name for block in found.blocks[-2:]] == ["conv_head … global_pool", "classifier"]
    assert len(found.blocks) == 19
    assert all(block.chained for block in found.blocks[1:])


def test_transformer_blocks_are_blocks():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3)
    space = input_space(network)._replace(size=(32, 32))
    assert names(network, space) == ["patch_embed.proj", "blocks.0", "blocks.1", "blocks.2 … norm", "head"]


def test_transformer_blocks_of_torch_are_blocks_of_six_layers():
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    network = torchvision.models.VisionTransformer(image_size=16, patch_size=4, **sizes)
    found, layers = find_blocks(network, SPACE), "encoder.layers.encoder_layer_"
    assert names(network, SPACE) == ["conv_proj", f"{layers}0", f"{layers}1 … encoder.ln", "heads.head"]
    assert [len(block.layers) for block in found.blocks] == [1, 6, 6, 1]
    assert not found.left_out


@pytest.mark.parametrize("name", ["densenet121", "inception_v3", "hrnet_w18_small", "test_convnext", "test_byobnet"])
def test_every_layer_is_in_one_block(name):
    network = timm.create_model(name)
    space = input_space(network)._replace(size=(96, 96) if name != "test_convnext" else input_space(network).size)
    found = find_blocks(network, space)
    held = [layer for block in found.blocks for layer in block.layers]
    assert sorted([*held, *found.left_out]) == sorted(quantizable_layers(network))
    assert not found.left_out
    assert max(len(block.layers) for block in found.blocks) <= 12


class Unusual(nn.Module):
    """A layer that runs twice, one that never does, one that is given no images, and one with two inputs and a mask."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x, y, mask, scale=1.0):
            return (self.a(x) + self.b(y)) * mask * scale

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.twice, self.never, self.table = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.two, self.head = self.Two(), nn.Linear(8, 5)
        self.register_buffer("mask", torch.ones(2, 8))

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        x = self.twice(self.twice(x))
        x = self.two(x, x.flip(0), mask=self.table(self.mask).sum(0), scale=0.5)
        return self.head(x)


def test_what_cannot_be_learned_by_itself_is_left_out():
    found = find_blocks(Unusual(), SPACE)
    assert [block.name for block in found.blocks] == ["stem", "two", "head"]
    assert found.left_out == ("twice", "never", "table")
    assert [block.each for block in found.blocks] == [(True,), (True, True, False), (True,)]


class InPlace(nn.Module):
    """Residual blocks that write into what their parts gave: the same tensors, with other content."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.gate, self.act = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), nn.ReLU(inplace=True)

        def forward(self, x):
            shortcut = x
            x = self.gate(self.norm(self.conv(x)))
            x += shortcut
            return self.act(x)

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), self.Block(), self.Block()
        self.last, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = self.last(self.b(self.a(torch.relu_(self.stem(x)))))
        return self.head(x.relu_().mean((2, 3)))


def test_what_is_written_into_is_another_thing():
    found = find_blocks(InPlace(), SPACE)
    assert [(block.name, block.chained) for block in found.blocks] == [
        ("stem", False),
        ("a", False),
        ("b", True),
        ("last", True),
        ("head", False),
    ]


class Told(nn.Module):
    """A part without layers that is told something beside its input is none that can follow on a block."""

    class Scale(nn.Module):
        def forward(self, x, factor=1.0):
            return factor * x

    def __init__(self):
        super().__init__()
        self.conv, self.scale, self.head = nn.Conv2d(3, 4, 16), self.Scale(), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.scale(self.conv(x), 3.0).flatten(1))


def test_a_part_that_is_told_more_follows_on_nothing():
    assert [block.modules for block in find_blocks(Told(), SPACE).blocks] == [("conv",), ("head",)]


def test_a_network_that_is_one_layer_has_no_blocks():
    network = nn.Conv2d(3, 4, 16)
    assert find_blocks(network, SPACE).left_out == ("",)


def description(network):
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [len(getattr(module, table)) for module in network.modules() for table in tables]


@pytest.mark.parametrize("name", ["cifar_resnet20", "digits_vit", "densenet121", "unusual", "in place", "told"])
def test_blocks_give_what_they_give_inside_the_network(name):
    own = {"unusual": Unusual, "in place": InPlace, "told": Told}
    network = (own[name]() if name in own else timm.create_model(name)).eval()
    space = SPACE if name in own else input_space(network)
    if name == "densenet121":
        space = space._replace(size=(64, 64))
    images, before = torch.randn(5, space.channels, *space.size), description(network)
    expected, blocks = {}, find_blocks(network, space).blocks
    handles = [
        network.get_submodule(block.modules[-1]).register_forward_hook(
            lambda module, args, output, block=block: expected.update({block: output.clone()})
        )
        for block in blocks
    ]
    logits = network(images)
    for handle in handles:
        handle.remove()
    held = None
    for block in blocks:
        inputs = record_inputs(network, block, images, batch_size=5)
        output = record_output(network, block, inputs, images, batch_size=5)
        torch.testing.assert_close(output, expected[block], rtol=0, atol=0)
        if block.chained:  # what the block before gave is what it would be given
            assert torch.equal(tree_leaves(inputs.leaves)[0], held)
            assert torch.equal(record_output(network, block, chained_inputs(held), images, 5), output)
        chosen = torch.tensor([3, 0])
        torch.testing.assert_close(run_block(network, block, inputs.of(chosen, images)), output[chosen])
        held = output
    torch.testing.assert_close(output, logits, rtol=0, atol=0)
    assert description(network) == before


def test_a_large_recording_lies_on_the_disk_in_half_precision(monkeypatch):
    monkeypatch.setattr("zerosum.players.recording.spare_memory", lambda device: 1000)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    images[0, 0, 0, 0] = 1e9  # beyond the range of half precision
    block = find_blocks(network, SPACE).blocks[0]
    inputs = record_inputs(network, block, images, 4)
    output = record_output(network, block, inputs, images, 4)
    assert inputs.first.dtype == output.dtype == torch.float16
    assert output.is_contiguous(memory_format=torch.channels_last)
    exact = run_block(network, block, chained_inputs(images.clamp(-65504, 65504)))
    given = inputs.of(torch.arange(6), images)
    assert given.first.dtype == torch.float32
    torch.testing.assert_close(output.float(), exact.clamp(-65504, 65504), rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 2, 3)])
def test_rows_lie_in_memory_as_they_were_recorded(axes):
    """Or convolutions would change the layout of what they are given, in every step."""
    images = torch.randn([7, 5, 4, 3]).permute(axes).contiguous().permute([axes.index(axis) for axis in range(4)])
    rows = rows_of(images, chosen := torch.tensor([6, 0, 6]), torch.empty(0, dtype=torch.float64))
    assert torch.equal(rows, images[chosen].double())
    if axes[0] == 0:
        assert sorted(range(4), key=rows.stride) == sorted(range(4), key=images.stride)
