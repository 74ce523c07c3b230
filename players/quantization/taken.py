"""A layer's weight that another module takes and computes with, as fused attention does."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from zerosum.players.quantization.quantizers import ActivationQuantizer


class TakenWeight(Tensor):
    """A layer's weight in the hands of another module: what it is applied to is quantized as the layer's input."""

    inputs: "ActivationQuantizer"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _apply(func, args, kwargs)


class TakenWeights(TorchFunctionMode):
    """Stands in for :class:`TakenWeight` while torch.export traces, which has tensors of a class of its own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(func, args, kwargs)


def _apply(func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(_OPERANDS, args, strict=False)) | (kwargs or {})
    if func in _APPLICATIONS and hasattr(given["weight"], "inputs"):
        x = given["weight"].inputs(given["input"])
        args, kwargs = (x, given["weight"], *args[2:]), {k: v for k, v in given.items() if k not in _OPERANDS}
    return func(*args, **(kwargs or {}))


_OPERANDS = ("input", "weight")
_APPLICATIONS = {F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
