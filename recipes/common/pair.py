"""A trained network and its quantized copy."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from zerosum import players, ranks
from zerosum.players import Architecture, Bits, InputSpace, Scheme
from zerosum.players.examination import Share
from zerosum.randomness import seed_all
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.recipes.common.subject import Data, Subject


class Pair:
    """P, ``teacher``, frozen and in eval mode, and Q, ``student``, its quantized copy, on one device.

    Both are copies: the network that is handed in stays as it was.

    Args:
        network: images (N, channels, height, width) in normalised input space → logits (N, classes).
        bits: of all layers, or of each by name (:func:`zerosum.players.assign_bits`).
        space: what the network takes; default: what it says itself (:func:`zerosum.players.input_space`).
        architecture: how it is built, for the folder that the run leaves; default: a module that was handed in.
        data: images and labels to measure on, where they are handed in too (:func:`zerosum.players.load_data`).

    Raises:
        ValueError: a network that cannot be quantized so, or one that does not say what it takes.
    """

    def __init__(
        self,
        network: nn.Module,
        bits: Bits | Mapping[str, Bits],
        scheme: Scheme | None = None,
        space: InputSpace | None = None,
        device: torch.device | str = "cpu",
        architecture: Architecture | None = None,
        data: Data | None = None,
    ) -> None:
        self.data = data
        self.scheme, self.device = scheme or Scheme(), torch.device(device)
        self.space = space or players.input_space(network)
        self.architecture = architecture or Architecture.of(network)
        teacher = copy.deepcopy(players.separated(network)).eval().to(self.device)
        for module in teacher.modules():  # autograd copies what an activation function is to overwrite
            if getattr(module, "inplace", False) is True:
                setattr(module, "inplace", False)  # noqa: B010 (a module's attributes have types)
        self.teacher = teacher.requires_grad_(False).to(memory_format=torch.channels_last)
        self.student = players.quantize(self.teacher, bits, self.scheme, space).requires_grad_(True)
        for copied in (self.teacher, self.student):
            players.say_space(copied, self.space)
        self.classes = players.number_of_classes(self.teacher, space)


def pair_of(config: DataFreeOptions, subject: Subject | None = None) -> Pair:
    """The pair that is asked for, or that of a network which is handed in. What comes after begins from the seed,
    whatever random numbers the network took.

    Raises:
        ValueError, OSError: input that cannot be worked with (see :mod:`zerosum.players`).
    """
    data = None
    seed_all(config.seed)
    if subject is None:
        network, architecture = config.find_backbone()
    else:
        network, architecture = subject.twin().to(config.torch_device), Architecture.of(subject.network)
        data = subject.data
    seed_all(config.seed)
    first_last = Bits.parse(config.first_last_bits) if config.first_last_bits is not None else None
    bits = players.assign_bits(network, Bits.parse(config.bits), config.layer_bits, first_last)
    return Pair(network, bits, config.scheme, device=config.torch_device, architecture=architecture, data=data)


def examination_of(pair: Pair, config: DataFreeOptions) -> players.Examination | None:
    """What measures the pair on the data that are asked for, P now; None where there are none."""
    source: Data | None = pair.data if pair.data is not None else config.data
    source = source if source is not None else players.own_data(config.backbone)
    if source is None:
        return None
    loader = players.load_data(
        source,
        pair.teacher,
        players.batch_that_fits(pair.teacher, space=pair.space),
        pair.space,
        workers=config.workers,
        root=config.data_root,
        split=config.data_split,
    )
    share = Share(ranks.index(), ranks.count(), ranks.gathered)
    return players.Examination(pair.teacher, pair.student, loader, pair.device, share)
