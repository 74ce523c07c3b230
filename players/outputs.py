"""What networks return: logits, or something that has them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Logits = Callable[[Any], Tensor]
"""From what a network returns to its logits (N, classes)."""

_KEYS = ("logits", "out", "output")  # transformers; torchvision's networks with several heads; others


def logits_of(output: Any) -> Tensor:
    """The logits (N, classes) in what a classifier returned: itself, where it is a tensor; ``.logits``; of a mapping
    that under ``logits``, ``out`` or ``output``, or the only one; of a tuple or list the first.

    Raises:
        ValueError: there are none.
    """
    found = output
    if isinstance(output, Mapping):
        names = [name for name in _KEYS if name in output] or (list(output) if len(output) == 1 else [])
        found = output[names[0]] if names else None
    elif not isinstance(output, Tensor):
        if isinstance(output, tuple | list) and not hasattr(output, "logits"):
            found = output[0] if output else None
        else:
            found = getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise ValueError(f"the network returns {_in_words(output)}: give logits=, what takes the logits out of that")
    return found


def checked(logits: Any, images: int) -> Tensor:
    """That these are logits of so many images.

    Raises:
        ValueError: they are not (images, classes) real numbers, of two classes or more.
    """
    if not isinstance(logits, Tensor):
        raise ValueError(f"expected logits (N, classes), found {_in_words(logits)}")
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(
            f"expected logits (N, classes) of two classes or more; of {images} images the network gives "
            f"{tuple(logits.shape)}, {logits.dtype}"
        )
    return logits


def answer_with_logits(network: nn.Module, logits: Logits) -> None:
    """Let a call of ``network``, and of its copies, return its logits alone."""
    network.register_forward_hook(lambda module, args, output: logits(output))


def _in_words(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} of {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {', '.join(type(part).__name__ for part in output) or 'nothing'}"
    return f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {kind}"
