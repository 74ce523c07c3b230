import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn

from zerosum.players import InputSpace, batch_that_fits, input_space, load_backbone, load_data
from zerosum.players.data import Digits, class_names


def folder_of(path, *classes, size=(40, 36)):
    for value, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        Image.new("RGB", size, (60 * value, 128, 255)).save(path / name / "image.png")
    return path


def test_the_two_splits_of_the_digits_share_no_image():
    train, held_out = (Digits(split, np.asarray) for split in ("train", "held-out"))
    assert (len(train), len(held_out)) == (1257, 540)
    assert not {p.tobytes() for p in train.pixels} & {p.tobytes() for p in held_out.pixels}
    assert np.bincount(held_out.labels).min() >= 50


def test_images_come_as_the_network_wants_them(tmp_path):
    network = load_backbone("cifar_resnet20", "random")
    with pytest.warns(UserWarning, match="3 class folders for 10 classes"):
        ((images, labels),) = load_data(str(folder_of(tmp_path, *"abc")), network)
    assert images.shape == (3, 3, 32, 32)
    assert labels.tolist() == [0, 1, 2]
    assert class_names(load_data(str(tmp_path), network)) == {0: "a", 1: "b", 2: "c"}
    space = input_space(network)
    expected = (torch.tensor([0, 128, 255]) / 255 - torch.tensor(space.mean)) / torch.tensor(space.std)
    torch.testing.assert_close(images[0, :, 16, 16], expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("named", [True, False], ids=["of timm's", "of the user's"])
def test_pictures_of_the_networks_size_are_neither_scaled_nor_cut(named, tmp_path):
    """Where nothing says how pictures are cut, timm cuts the centre out of one 1/0.875 of the size."""
    if named:
        network, space = load_backbone("test_resnet", "random", num_classes=1), None
    else:
        network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        space = InputSpace(3, (12, 20), (0.0,) * 3, (1.0,) * 3)
    channels, size, mean, std = space or input_space(network)
    pixels = np.random.default_rng(0).integers(0, 255, (*size, channels), np.uint8)
    (tmp_path / "0").mkdir()
    Image.fromarray(pixels).save(tmp_path / "0" / "image.png")
    ((images, _),) = load_data(str(tmp_path), network, space=space)
    expected = torch.tensor(pixels).permute(2, 0, 1) / 255 - torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(images[0], expected / torch.tensor(std)[:, None, None])


def test_a_network_for_grey_images_is_given_grey_ones(tmp_path):
    ((images, _),) = load_data(str(folder_of(tmp_path, *"abcdefghij")), load_backbone("digits_resnet8"))
    assert images.shape == (10, 1, 8, 8)


def test_wordnet_ids_give_the_classes_of_imagenet(tmp_path):
    ids = ImageNetInfo().label_names()
    folder_of(tmp_path, ids[2], ids[990], ids[512])
    network = load_backbone("resnet18", "random")
    labels = torch.cat([labels for _, labels in load_data(str(tmp_path), network)])
    assert sorted(labels.tolist()) == [2, 512, 990]
    assert class_names(load_data(str(tmp_path), network)) == {label: ids[label] for label in (2, 512, 990)}


def test_measuring_draws_nothing_from_the_games_random_numbers():
    network = load_backbone("digits_resnet8")
    before = torch.get_rng_state()
    for _ in load_data("digits", network):
        pass
    assert class_names(load_data("digits", network)) == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_folders_that_cannot_be_used_are_named(tmp_path):
    network = load_backbone("cifar_resnet20", "random")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_data(str(tmp_path / "none"), network)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images there"):
        load_data(str(tmp_path / "empty"), network)
    (tmp_path / "hollow" / "class").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images there"):
        load_data(str(tmp_path / "hollow"), network)
    with pytest.raises(ValueError, match="10 classes, and the network has 7"):
        load_data("digits", load_backbone("cifar_resnet20", "random", num_classes=7))
    with pytest.raises(ValueError, match="11 classes, and the network has 10"):
        load_data(str(folder_of(tmp_path / "many", *"abcdefghijk")), network)


def test_batches_are_sized_to_memory():
    small = load_backbone("cifar_resnet20", "random")
    assert batch_that_fits(small) == 128
    assert batch_that_fits(small, most=7) == 7
    network = nn.Upsample(scale_factor=64)  # 4 MB for each of 4 tensors at 16 pixels
    network.pretrained_cfg = {"input_size": (1, 16, 16)}
    network.register_parameter("on", nn.Parameter(torch.zeros(1)))
    assert batch_that_fits(network) == 2**30 // (4 * 4 * (16 * 64) ** 2)


def test_any_module_with_an_input_space(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    space = InputSpace(1, (8, 8), (0.5,), (0.25,))
    assert batch_that_fits(network, space=space) == 128
    images, _ = next(iter(load_data("digits", network, 32, space)))
    assert images.shape == (32, 1, 8, 8)
    assert (images.amin(), images.amax()) == (-2, 2)
    assert network.training
    for refused in (load_data, lambda _, network: batch_that_fits(network)):
        with pytest.raises(ValueError, match="Sequential does not say what input it takes"):
            refused("digits", network)
    with pytest.raises(ValueError, match="10 classes, and the network has 9"):
        load_data("digits", nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), space=space)
