import pytest
import torch
from safetensors.torch import save_file

from zerosum.players import Bits, Scheme, calibrate, load_backbone, load_quantized, quantize, save_quantized


def test_one_call_brings_the_network_back(tmp_path):
    network = load_backbone("digits_resnet8", "random", num_classes=7)
    quantized = quantize(network, Bits(3, 4))
    images = torch.randn(5, 1, 8, 8)
    calibrate(quantized, [images])
    save_quantized(tmp_path / "q.safetensors", quantized, "digits_resnet8", Scheme())
    loaded = load_quantized(tmp_path / "q.safetensors")
    assert torch.equal(loaded(images), quantized(images))
    assert not loaded.training


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_quantized(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a quantized network"):
        load_quantized(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a quantized network"):
        load_quantized(tmp_path / "damaged.safetensors")
