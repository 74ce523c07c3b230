"""Any module that is handed in is quantized and left exactly as it was, or refused in a sentence."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from tests.handed_in import PIXELS, Returning, Shared, Small, assert_as_before, quantize, state
from zerosum.players import Bits, InputSpace
from zerosum.players.outputs import logits_of
from zerosum.recipes.adasg import Config
from zerosum.recipes.common.data_free import Pair, generated


class Bare(nn.Module):
    """No image, no logits."""

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "options"),
    {
        "plain, in train mode": (Small, {}),
        "four channels": (lambda: Small(4), {"input_size": (4, 12, 20)}),
        "one channel": (lambda: Small(1), {"input_size": (1, 12, 20)}),
        "a dict": (lambda: Returning(lambda y: {"logits": y, "aux": y * 2}), {}),
        "a dict of one": (lambda: Returning(lambda y: {"classes": y}), {}),
        "an object": (lambda: Returning(lambda y: SimpleNamespace(logits=y)), {}),
        "an auxiliary head": (lambda: Returning(lambda y: (y, y[:, :2])), {}),
        "a list, by logits=": (lambda: Returning(lambda y: [y[:, :2], y]), {"logits": lambda found: found[1]}),
        "shared weights": (Shared, {}),
        "float16": (lambda: Small().half(), {}),
        "bfloat16": (lambda: Small().bfloat16(), {}),
        "float64": (lambda: Small().double(), {}),
        "frozen parts": (lambda: Small().requires_grad_(False), {}),
        "compiled": (lambda: torch.compile(Small()), {}),
        "no BatchNorm, but attention": (
            lambda: torchvision.models.VisionTransformer(12, 4, 2, 2, 16, 32, num_classes=4),
            {"input_size": (3, 12, 12)},
        ),
    }.values(),
    ids=lambda value: None,
)
def test_any_module_is_quantized_and_stays_as_it_was(make, options):
    network = make()
    before = state(network)
    result = quantize(network, **{"input_size": (3, 12, 20)} | PIXELS | options)
    assert_as_before(network, before)
    assert not result.network.training
    assert 0 < result.summary["quantized_bytes"] < result.summary["float_bytes"]
    images = torch.randn(2, *options.get("input_size", (3, 12, 20)))
    images = images.to(next(result.network.parameters(), images))
    pick = options.get("logits", logits_of)
    assert pick(result.network(images)).shape == (2, 4)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (Bare, {}, "Bare has no parameters, so nothing to quantize"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), {}, "does not know|do not know their shapes yet"),
        (lambda: nn.Conv2d(3, 4, 3), {}, r"expected logits \(N, classes\)"),
        (lambda: nn.Conv2d(1, 4, 3), {}, r"Conv2d does not run on images of shape \(2, 3, 12, 20\)"),
        (lambda: Returning(lambda y: {"a": y, "b": y}), {}, "returns a dict of a, b: give logits="),
        (lambda: Returning(lambda y: y[:, 0]), {}, r"expected logits \(N, classes\)"),
        (lambda: Returning(lambda y: None), {}, "returns a NoneType: give logits="),
        (Small, {"logits": lambda y: y.nothing}, "AttributeError"),
        (Small, {"class_names": ["a"]}, "1 class names, and Small has 4 classes"),
        (Small, {"input_size": None}, r"give input_size=\(channels, height, width\)"),
        (Small, {"mean": None}, "give mean="),
        (Small, {"std": 0}, "expected numbers above 0"),
        (Small, {"mean": (0.5, 0.5)}, "takes 3 channels"),
        (Small, {"input_size": (12, 20)}, "expected"),
        (Small, {"input_size": (3, 0, 20)}, "expected 1 or more"),
        (Small, {"bits": "w9a4"}, "w9a4"),
        (Small, {"rounds": "many"}, "--rounds: 'many' is no"),
        (Small, {"recipe": "saddle"}, "quantizes no network that is handed in"),
        (Small, {"data": [1]}, "data"),
    ],
)
def test_what_cannot_be_quantized_is_refused_in_a_sentence(make, options, said):
    network = make()
    with pytest.raises(ValueError, match=said) as caught:
        quantize(network, **{"input_size": (3, 12, 20)} | PIXELS | options)
    assert "\n" not in str(caught.value)


def test_raw_pixels_get_images_in_their_range():
    config = Config()
    for std in (1.0, 1 / 255):
        pair = Pair(Small(), Bits(8, 8), space=InputSpace(3, (12, 20), (0.0,) * 3, (std,) * 3))
        source = generated(pair, config)
        pixels = source.images(source.sample()) * std
        assert 0.4 < pixels.mean() < 0.5
        assert 0.2 < pixels.std() < 0.3


@pytest.mark.parametrize("kind", ["ViT", "ResNet"])
def test_networks_of_transformers(kind, tmp_path):
    library = pytest.importorskip("transformers")
    if kind == "ViT":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = library.ViTConfig(image_size=16, patch_size=4, num_labels=3, **shape)
        network = library.ViTForImageClassification(config)
    else:
        config = library.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
        network = library.ResNetForImageClassification(config)
    before = copy.deepcopy(state(network))
    with pytest.raises(ValueError, match="does not say what images it takes"):
        quantize(network)
    network.save_pretrained(tmp_path)
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = type(network).from_pretrained(tmp_path)
    result = quantize(found)
    assert result.network(torch.randn(2, 3, 16, 16)).logits.shape == (2, 3)
    assert quantize(network, input_size=(3, 16, 16), mean=0.5, std=0.5).summary["rounds"] > 2
    assert_as_before(network, before)
