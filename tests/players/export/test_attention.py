"""Networks with nn.MultiheadAttention: exported, they agree, and what enters three projections is rounded once."""

from collections import Counter

import onnx_ir
import pytest
import torch
import torchvision
from torch import nn

from zerosum.players import Bits, InputSpace, Scheme, calibrate, layer_bits, quantize
from zerosum.players.export.onnx_file import load_onnx
from zerosum.players.export.onnx_graph import onnx_model
from zerosum.players.export.program import integer_network, trace
from zerosum.players.export.pt2_file import save_pt2

SPACE = InputSpace(3, (16, 16), (0.5,) * 3, (0.5,) * 3)


def vision_transformer():
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}
    network = torchvision.models.VisionTransformer(image_size=16, patch_size=4, **sizes).eval()
    nn.init.normal_(network.heads.head.weight, std=0.2)  # begins as zeros
    return network


class Detects(nn.Module):
    """Four learned queries look at 16 places, with a mask and a position that values do not have."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10)
        self.queries = nn.Embedding(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, add_zero_attn=True, add_bias_kv=True)
        self.register_buffer("place", torch.randn(16, 1, 8))
        self.register_buffer("mask", torch.ones(4, 16).triu(3) > 0)

    def forward(self, images):
        x = self.stem(images).flatten(2).permute(2, 0, 1)
        queries = self.queries.weight[:, None].expand(-1, images.shape[0], -1)
        x, weights = self.attention(queries, x + self.place, x, attn_mask=self.mask)
        return self.head(x).mean(0) + weights.mean(dim=(1, 2))[:, None]


@pytest.mark.parametrize(("make", "entering"), [(vision_transformer, 2 + 4), (Detects, 2 + 4)])
@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
def test_they_are_exported_and_agree(tmp_path, make, entering, bits):
    network, images = make().eval(), torch.randn(32, 3, 16, 16)
    quantized = quantize(network, Bits.parse(bits), Scheme(), SPACE)
    calibrate(quantized, [images])
    with torch.no_grad():
        expected = quantized(images)
    program = trace(integer_network(quantized, images[:2]), images[:2])
    near = {"rtol": 0, "atol": 0.02 * expected.abs().max().item()}
    save_pt2(program, tmp_path / "q.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "q.pt2").module()(images), expected, **near)
    model = onnx_model(program, layer_bits(quantized), 21)
    assert Counter(node.op_type for node in model.graph)["QuantizeLinear"] == entering
    onnx_ir.save(model, tmp_path / "q.onnx")
    torch.testing.assert_close(load_onnx(tmp_path / "q.onnx")[0](images), expected, **near)
