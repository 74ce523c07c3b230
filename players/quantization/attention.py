"""nn.MultiheadAttention with its four projections as linear layers, which are then layers like any others."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_OWN = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class SeparateAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention that calls linear layers: ``q_proj``, ``k_proj``, ``v_proj``, and ``out_proj``.

    It takes, and gives, what nn.MultiheadAttention does. Three layers in front, not one: in DETR, say, keys are given a
    position that values are not, which is another tensor of another range. It has no ``in_proj_weight`` and no
    ``in_proj_bias``; without them, nn.TransformerEncoderLayer calls it in eval mode too, and does not take its weights
    to a fused kernel.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (N, L, E), keys (N, S, kdim), values (N, S, vdim) → (N, L, E), and weights (N, L, S) or, not
        averaged, (N, heads, L, S) if they are needed.

        Without ``batch_first``, the first two axes of all but masks and weights change places; of one sequence, N is
        left out.

        Raises:
            ValueError: ``is_causal`` without ``attn_mask``.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal without attn_mask: it says what the mask is; give that too")
        batched = query.ndim == 3
        turned = batched and not self.batch_first
        inputs = [x[None] if not batched else x.transpose(0, 1) if turned else x for x in (query, key, value)]
        q, k, v = (getattr(self, name)(x) for name, x in zip(_PROJECTIONS, inputs, strict=True))
        with torch._C.DisableTorchFunction():  # or the sums and the average in here would be seen as the network's
            if is_causal and key_padding_mask is None and not need_weights:
                attended, weights = self._attend(q, k, v, None, is_causal=True, need_weights=False)
            else:
                mask = self._mask(attn_mask, key_padding_mask, q.dtype)
                attended, weights = self._attend(q, k, v, mask, is_causal=False, need_weights=need_weights)
            if weights is not None and average_attn_weights:
                weights = weights.mean(dim=1)
        output = self.out_proj(attended)
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output.transpose(0, 1).contiguous() if turned else output, weights

    def _mask(self, attention: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to scores (N, heads, L, S), of torch's two masks."""
        masks = []
        if attention is not None:  # (L, S) or (N * heads, L, S)
            masks.append(attention if attention.ndim == 2 else torch.unflatten(attention, 0, (-1, self.num_heads)))
        if padding is not None:  # (N, S), or (S,) of one sequence
            masks.append(padding[..., None, None, :])
        added = [_added(mask, dtype) for mask in masks]
        return sum(added[1:], added[0]) if added else None

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Projected queries (N, L, E), keys and values (N, S, E) → (N, L, E), weights (N, heads, L, S)."""
        more = 0  # places to attend to, beside what was given
        if self.bias_k is not None and self.bias_v is not None:
            last = (row.expand(k.shape[0], -1, -1) for row in (self.bias_k, self.bias_v))
            k, v = (torch.cat(both, 1) for both in zip((k, v), last, strict=True))
            more += 1
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            more += 1
        if mask is not None:
            mask = F.pad(mask, (0, more))
        q, k, v = (torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            scores = q / math.sqrt(self.head_dim) @ k.mT
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            attended = weights @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
        return attended.transpose(1, 2).flatten(2), weights


def separated(network: nn.Module) -> nn.Module:
    """The network itself; one with nn.MultiheadAttention, as a copy that has :class:`SeparateAttention` in its place.

    It computes the same. The copy's tensors are the network's own, or views of them: copy it before you change anything
    in it. Subclasses of nn.MultiheadAttention with a ``forward`` of their own, and parametrized ones, stay as they are.
    """
    if not any(map(_is_torchs, network.modules())):
        return network
    tensors: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    network = copy.deepcopy(network, tensors)
    for module in list(network.modules()):
        if _is_torchs(module):
            _separate(module)
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # for the fused kernel
    return network


def _is_torchs(module: nn.Module) -> bool:
    if not isinstance(module, nn.MultiheadAttention) or parametrize.is_parametrized(module):
        return False
    return getattr(module.forward, "__func__", None) is nn.MultiheadAttention.forward


def _separate(attention: Any) -> None:
    weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    if attention.in_proj_weight is not None:
        weights = _thirds(attention.in_proj_weight)
    biases = [None] * 3 if attention.in_proj_bias is None else _thirds(attention.in_proj_bias)
    # In place, so that hooks, and every other name that the module has, stay its.
    cls = type(attention)
    bases = (SeparateAttention,) if cls is nn.MultiheadAttention else (SeparateAttention, cls)
    attention.__class__ = bases[0] if len(bases) == 1 else type(f"Separate{cls.__name__}", bases, {})
    for name in _OWN:
        setattr(attention, name, None)
    last = attention.out_proj
    del attention.out_proj  # layers are held in the order in which they run
    for name, weight, bias in zip(_PROJECTIONS, weights, biases, strict=True):
        setattr(attention, name, _linear(weight, bias).train(attention.training))
    attention.out_proj = last


def _thirds(parameter: Tensor) -> list[nn.Parameter]:
    return [nn.Parameter(part, parameter.requires_grad) for part in parameter.detach().chunk(3)]


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")  # where no random numbers are drawn
    layer.weight = weight
    if bias is not None:
        layer.bias = bias
    return layer


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to scores; a boolean one is True where nothing is attended to."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
