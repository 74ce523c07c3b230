"""What is to be quantized, and what it is measured on, where a user hands that in from Python in place of names."""

import copy
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.utils.data import DataLoader, Dataset

from zerosum.players import InputSpace, input_space, say_space
from zerosum.players.image_processors import processed_space
from zerosum.players.outputs import Logits, answer_with_logits, checked, logits_of
from zerosum.players.probe import probe
from zerosum.players.reasons import in_a_line
from zerosum.players.spaces import check_space, says_space

Data = str | DataLoader[Any] | Dataset[Any]
_TRIED = 2  # images


class Subject(NamedTuple):
    """A network, which stays as it is; what it takes; from what it returns to its logits; images and labels to measure
    on, or None; and what its classes are called, or None."""

    network: nn.Module
    space: InputSpace
    logits: Logits = logits_of
    data: Data | None = None
    class_names: Sequence[str] | None = None

    def copied(self) -> nn.Module:
        """The network once more, in eval mode and in float32.

        Raises:
            ValueError: it cannot be copied.
        """
        network = getattr(self.network, "_orig_mod", self.network)  # torch.compile's is inside
        try:
            found = copy.deepcopy(network).eval()
        except Exception as error:
            raise ValueError(f"{self._name} cannot be copied: {in_a_line(error)}") from error
        return found.float()

    def twin(self) -> nn.Module:
        """The same, saying what it takes, and returning logits (N, classes) alone.

        Raises:
            ValueError: the network cannot be copied, does not run on such images, or gives no logits.
        """
        if any(nn.parameter.is_lazy(parameter) for parameter in self.network.parameters()):
            raise ValueError(f"{self._name} has layers that do not know their shapes yet; run it on images once")
        twin = self.copied()
        if next(twin.parameters(), None) is None:
            raise ValueError(f"{self._name} has no parameters, so nothing to quantize")
        say_space(twin, self.space, self.class_names)
        shape = (_TRIED, self.space.channels, *self.space.size)
        try:
            found = probe(twin, self.space, _TRIED)
        except Exception as error:
            raise ValueError(f"{self._name} does not run on images of shape {shape}: {in_a_line(error)}") from error
        try:
            logits = self.logits(found)
        except Exception as error:
            raise ValueError(f"{self._name}: {error if self.logits is logits_of else in_a_line(error)}") from error
        classes = checked(logits, _TRIED).shape[1]
        if self.class_names is not None and len(self.class_names) != classes:
            raise ValueError(f"{len(self.class_names)} class names, and {self._name} has {classes} classes")
        if getattr(twin, "num_classes", classes) != classes:  # of something else
            setattr(twin, "num_classes", classes)  # noqa: B010 (a module's attributes have types)
        answer_with_logits(twin, self.logits)
        return twin

    @property
    def _name(self) -> str:
        return type(self.network).__name__


def space_of(network: nn.Module, input_size: Any, mean: Any, std: Any) -> InputSpace:
    """What is said, and where nothing is, what the network says itself.

    Raises:
        ValueError: too little is known, or what is said makes no sense.
    """
    own = input_space(network) if says_space(network) else processed_space(network)
    size = input_size if input_size is not None else None if own is None else (own.channels, *own.size)
    mean = mean if mean is not None else None if own is None else own.mean
    std = std if std is not None else None if own is None else own.std
    given = {"input_size=(channels, height, width)": size, "mean=": mean, "std=": std}
    name = type(network).__name__
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(
            f"{name} does not say what images it takes: give {', '.join(missing)}, by which pixel values in 0 to 1 are "
            "normalised (mean=0, std=1 where they are taken as they are)"
        )
    try:
        channels, height, width = (operator.index(side) for side in size or ())
        mean, std = (
            tuple(float(value) for value in values) if isinstance(values, Iterable) else (float(values),) * channels
            for values in (mean, std)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"input_size={size}, mean={mean}, std={std}: expected (channels, height, width), and a number a channel"
        ) from error
    space = InputSpace(channels, (height, width), mean, std)
    check_space(name, space)
    return space
