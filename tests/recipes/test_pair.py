"""The pair is made of copies, of any module."""

import torch
from torch import nn

from zerosum.players import Bits, ConditionalGenerator, InputSpace, Scheme, assign_bits, quantizable_layers
from zerosum.players.blocks import find_blocks
from zerosum.recipes.common.data_free import DataFreeOptions, Generated, Pair, Scene, prior_of

SPACE = InputSpace(2, (12, 20), (0.5, 0.4), (0.2, 0.3))


def own_network():
    """No timm network: it has no config and no number of classes."""
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)),
    )


def description(network):
    hooks = [
        len(table)
        for module in network.modules()
        for table in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    parameters = [(p.requires_grad, p.stride(), p.grad is None) for p in network.parameters()]
    return hooks, parameters, [module.training for module in network.modules()], type(network), sorted(vars(network))


def test_a_network_that_is_handed_in_stays_as_it_was():
    network = own_network().train()
    network[0].bias.requires_grad_(False)
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(1))  # its owner's
    before, state = description(network), {name: value.clone() for name, value in network.state_dict().items()}

    pair = Pair(network, Bits(4, 4), Scheme(sums="quantized"), SPACE)
    generator = ConditionalGenerator(pair.classes, SPACE.size, SPACE.channels)
    source = Generated(generator, 4, pair.device)
    scene = Scene(pair, source, prior_of(pair.teacher), DataFreeOptions(calibration=2))
    scene.calibrate()
    play = scene.play(source.sample())
    (play.q.square().mean() + scene.prior.loss(play.seen)).backward()

    assert pair.classes == 7
    assert play.p.shape == play.q.shape == (4, 7)
    assert description(network) == before
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not pair.teacher.training
    assert not any(p.requires_grad for p in pair.teacher.parameters())
    assert all(p.requires_grad for p in pair.student.parameters())


class Attends(nn.Module):
    """Attention whose projections are blocks each, because it is given one thing and gives two."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(24, 2, batch_first=True), nn.Linear(24, 7)

    def forward(self, images):
        x = images.reshape(len(images), 20, 24)
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_attention_has_the_same_layers_in_both_and_shares_nothing_with_the_network():
    network = Attends()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pair = Pair(network, assign_bits(network, Bits(4, 4), space=SPACE), space=SPACE)
    names = [f"attention.{name}_proj" for name in ("q", "k", "v", "out")]
    for both in (pair.teacher, pair.student):
        assert list(quantizable_layers(both)) == [*names, "head"]
        assert [block.name for block in find_blocks(both, SPACE).blocks] == [*names, "head"]
        assert both.get_submodule(names[0]).in_features == 24
    with torch.no_grad():
        for parameter in (*pair.teacher.parameters(), *pair.student.parameters()):
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
