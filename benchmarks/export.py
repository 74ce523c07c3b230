"""Export a network of ten timm families to ONNX and compare: ``python -m benchmarks.export`` prints a table.

Networks have random weights and see random images, at the smallest size that they take. ``--all`` takes the smallest of
every family.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from rich.progress import track

from benchmarks.coverage import LARGEST, families, images_for, smallest
from zerosum.players import Architecture, Bits, Scheme, calibrate, input_space, layer_bits, quantize
from zerosum.players.export.onnx_file import load_onnx, save_onnx
from zerosum.players.export.program import integer_network, trace
from zerosum.players.storage import Description

FAMILIES = {
    "byobnet": "test_byobnet",
    "convnext": "test_convnext",
    "densenet": "densenet121",
    "efficientnet": "test_efficientnet",
    "eva": "vit_tiny_patch16_dinov3_qkvb",  # takes the weight of its projections
    "lowformer": "lowformer_b0",  # transposed convolutions
    "mobilenetv3": "mobilenetv3_small_050",
    "nfnet": "test_nfnet",  # weight-standardised convolutions
    "regnet": "regnetx_002",
    "vision_transformer": "test_vit",
}
_IMAGES = 8


class Row(NamedTuple):
    """Distance of ONNX Runtime's logits from PyTorch's quantized ones, and of these from full precision (rounding), in
    shares of the logits' norm; or the reason why there is none."""

    family: str
    network: str
    distance: float
    rounding: float
    reason: str


def check(family: str, name: str) -> Row:
    """Export one network at w8a8. It agrees when what differs is less than what quantization itself changes."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    images = torch.randn(_IMAGES, *images_for(network).shape[1:])
    quantized = quantize(network, Bits(8, 8))
    calibrate(quantized, [images])
    description = Description(Architecture("timm", name), layer_bits(quantized), Scheme(), input_space(network))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "quantized.onnx"
        try:
            save_onnx(trace(integer_network(quantized, images[:2]), images[:2]), quantized, description, 21, path)
            found = load_onnx(path)[0](images)
        except Exception as error:
            return Row(family, name, float("nan"), float("nan"), f"{str(error).splitlines()[0][:150]}")
        expected, full = quantized(images), network(images)
    distance = ((found - expected).norm() / expected.norm()).item()
    rounding = ((expected - full).norm() / full.norm()).item()
    return Row(family, name, distance, rounding, "" if distance <= rounding else "differs by more than rounding")


def main() -> int:
    """Exit code 1 where a network is not exported, or does not agree."""
    chosen = FAMILIES
    if "--all" in sys.argv[1:]:
        found = {family: smallest(names) for family, names in families().items()}
        chosen = {family: name for family, (name, parameters) in found.items() if parameters < LARGEST}
    rows = [check(family, name) for family, name in track(chosen.items(), "networks")]
    print("| family | network | ONNX Runtime – PyTorch | PyTorch – full precision | |\n|---|---|---|---|---|")
    for row in rows:
        figures = " | ".join("" if row.reason and value != value else f"{value:.4f}" for value in row[2:4])
        print(f"| {row.family} | {row.network} | {figures} | {row.reason or 'agrees'} |")
    return int(any(row.reason for row in rows))


if __name__ == "__main__":
    sys.exit(main())
