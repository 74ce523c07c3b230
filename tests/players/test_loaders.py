"""Batches that others make, and data sets by timm's names."""

import random
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision import transforms
from torchvision.datasets import FakeData

from zerosum.players import Examination, InputSpace, load_data
from zerosum.players.data import class_names, evaluation_transform
from zerosum.players.loaders import is_named, number_of_batches
from zerosum.recipes.common.options import DataFreeOptions
from zerosum.runs.run import main

SPACE = InputSpace(1, (8, 8), (0.5,), (0.5,))
CPU = torch.device("cpu")


def network():
    torch.manual_seed(1)
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    made.pretrained_cfg = {"crop_pct": 1.0}
    return made


def pairs(count=20, shape=(1, 8, 8)):
    return TensorDataset(torch.randn(count, *shape), torch.arange(count) % 10)


class Stream(IterableDataset):
    """Of no length that is known beforehand."""

    def __iter__(self):
        return iter([(image, int(label)) for image, label in pairs()])


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_a_loader_is_used_as_it_is():
    loader = DataLoader(pairs(), 7)
    assert load_data(loader, network(), 128, SPACE) is loader
    assert load_data(loader, network()) is loader  # the network itself says what it takes
    assert class_names(loader) == {}


def test_a_data_set_of_pairs_is_read_in_order():
    loader = load_data(pairs(), network(), 8, SPACE)
    assert [len(labels) for _, labels in loader] == [8, 8, 4]
    assert torch.cat([labels for _, labels in loader]).tolist() == [i % 10 for i in range(20)]


def test_a_data_set_without_a_length_is_read_by_one_process():
    loader = load_data(Stream(), network(), 8, SPACE, workers=2)
    assert number_of_batches(loader) is None
    examination = Examination(network(), network(), loader, CPU)
    assert examination.images == 20
    assert examination()["agreement"] == 100


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pairs(shape=(3, 8, 8)), r"images of shape \(3, 8, 8\), which the network refuses: it takes \(1, 8, 8\)"),
        (pairs(shape=(1, 9, 8)), r"\(1, 9, 8\), which the network refuses: it takes"),
        (pairs(shape=(8, 8)), r"images of shape \(20, 8, 8\) and type torch.float32 for 20 labels; expected pairs"),
        (TensorDataset(torch.zeros(4, 1, 8, 8).byte(), torch.arange(4)), "type torch.uint8 for 4 labels; expected"),
        (TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4)), "labels of shape .4,. and type torch.float32"),
        (TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4, 10).long()), r"labels of shape \(4, 10\)"),
        (TensorDataset(torch.zeros(4, 1, 8, 8), torch.tensor([1, 10, 2, 3])), r"label 10, and .* 10 classes \(0 to 9"),
        (TensorDataset(torch.zeros(4, 1, 8, 8), torch.tensor([1, -1, 2, 3])), "label -1, and"),
        (TensorDataset(torch.zeros(4, 1, 8, 8)), r"a batch is \['Tensor'\]; expected pairs"),
        ([{"image": torch.zeros(1, 8, 8), "label": 3}], "a batch is dict; expected pairs"),
        (FakeData(4, (3, 8, 8)), "found <class 'PIL.Image.Image'>; expected .*evaluation_transform makes such"),
        ([(torch.zeros(1, 8, 8), 1), (torch.zeros(1, 9, 9), 1)], "equal size"),
        ([], "no images"),
        (None, "expected pairs"),
    ],
)
def test_batches_that_the_network_cannot_take_are_refused(data, message):
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        load_data(data, network(), 128, SPACE)


def test_without_a_space_the_network_refuses():
    with pytest.raises(ValueError, match=r"^data: images of shape \(3, 8, 8\), which the network refuses: mat1"):
        load_data(pairs(shape=(3, 8, 8)), network())


def test_a_later_label_is_refused_when_the_teacher_is_measured():
    late = TensorDataset(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 10]))
    loader = load_data(late, network(), 2, SPACE)
    with pytest.raises(ValueError, match="label 10, and the network has 10 classes"):
        Examination(network(), network(), loader, CPU)


def test_a_loader_that_shuffles_gives_the_same_order_each_time_and_draws_nothing():
    before = states()
    torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
    images = pairs()
    drawn = states()
    loader = load_data(DataLoader(images, 8, shuffle=True), network(), space=SPACE)
    networks = [network(), network()]
    torch.set_rng_state(torch.tensor(drawn[0], dtype=torch.uint8))
    assert Examination(*networks, loader, CPU)()["agreement"] == 100
    assert states() == drawn


def test_another_order_at_each_pass_is_refused():
    loader = DataLoader(pairs(), 8, shuffle=True, generator=torch.Generator())
    examination = Examination(network(), network(), load_data(loader, network(), space=SPACE), CPU)
    with pytest.raises(ValueError, match="not those of its first pass; give it shuffle=False"):
        examination()


def test_workers_change_nothing(tmp_path):
    from tests.players.test_folders import folder_of

    folder = folder_of(tmp_path, *map(str, range(10)))
    for source in (folder, pairs()):
        before = states()
        alone, together = ([*load_data(source, network(), 3, SPACE, workers=workers)] for workers in (0, 2))
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        loader = load_data(source, network(), 3, SPACE, workers=2)
        assert loader.num_workers == 2
        now = states()
        together = [*loader]
        assert states() == now
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_pictures_are_sent_as_bytes_and_come_normalised(tmp_path):
    from tests.players.test_folders import folder_of

    space = InputSpace(3, (8, 8), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    made = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    made.pretrained_cfg = {"crop_pct": 1.0}
    folder = folder_of(tmp_path, *map(str, range(10)))
    for path in tmp_path.glob("*/*"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    loader = load_data(folder, made, 4, space)
    assert {image.dtype for image, _ in loader.dataset} == {torch.uint8}
    by_torchvision = transforms.Compose([transforms.ToTensor(), transforms.Normalize(space.mean, space.std)])
    pictures = [Image.open(path) for path in sorted(tmp_path.glob("*/*"))]
    expected = torch.stack([by_torchvision(picture) for picture in pictures])
    assert torch.equal(torch.cat([images for images, _ in loader]), expected)
    assert torch.equal(torch.stack([evaluation_transform(made, space)(picture) for picture in pictures]), expected)


def write_mnist(root):
    """Five held-out digits, as its own files have them: the picture of a label has its brightness."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 5)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels)
        labels = np.arange(count, dtype=np.uint8).tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels)


def test_a_data_set_by_name(tmp_path):
    write_mnist(tmp_path)
    ((images, labels),) = load_data("torch/mnist", network(), 128, SPACE, root=tmp_path)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert images.shape == (5, 1, 8, 8)
    torch.testing.assert_close(images[:, 0, 0, 0], torch.arange(5) / 255 / 0.5 - 1)
    ((_, labels),) = load_data("Torch/mnist", network(), 128, SPACE, root=tmp_path, split="train")
    assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("torch/mnist", None, "--data-root has to say in which folder it lies"),
        ("torch/mnist", "/nowhere", r"\(root /nowhere, split validation\): Dataset not found"),
        ("torch/nonsense", "/nowhere", "Unknown torchvision dataset nonsense"),
        ("torch/folder", "images", "give the folder itself"),
        ("hfds/beans", None, "needs the package datasets; pip install datasets"),
        ("wds/beans", None, "needs the package webdataset; pip install webdataset"),
        ("tfds/beans", None, "needs the package tensorflow_datasets; pip install tensorflow-datasets"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_refused_in_a_line(name, root, message, tmp_path, monkeypatch, capsys):
    from tests.players.test_folders import folder_of

    folder_of(tmp_path / "images", "a", "b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zerosum.players.loaders.find_spec", lambda package: None)  # as where nobody installed it
    with pytest.raises(ValueError, match=f"^data {name}.*{message}"):
        load_data(name, network(), 128, SPACE, root=root)
    assert capsys.readouterr() == ("", "")


def test_shards_want_a_root(monkeypatch):
    monkeypatch.setattr("zerosum.players.loaders.find_spec", lambda package: object())
    with pytest.raises(ValueError, match="data wds/beans: --data-root has to say in which folder it lies"):
        load_data("wds/beans", network(), 128, SPACE)


def test_a_folder_that_is_there_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_named("hfds/beans")
    (tmp_path / "hfds" / "beans").mkdir(parents=True)
    assert not is_named("hfds/beans")
    assert not any(map(is_named, ("digits", "torch", "images/torch")))


def test_options_of_data(tmp_path, capsys):
    root = {"data": "torch/mnist", "data_root": "~/mnist"}
    assert DataFreeOptions(**root).inputs() == {"data_root": (tmp_path / "~").home() / "mnist"}
    assert DataFreeOptions(data="hfds/beans", data_root="cache").inputs() == {}  # a hub's cache changes by itself
    with pytest.raises(ValueError, match="--data-root x: only a data set by name has one"):
        DataFreeOptions(data="images", data_root="x").check()
    with pytest.raises(ValueError, match="--workers -1"):
        DataFreeOptions(workers=-1).check()
    assert main(["adasg", "--rounds", "0", "--data", "torch/mnist", "--data-root", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"data torch/mnist (root {tmp_path}, split validation): Dataset not found" in line


def test_a_run_measures_on_a_data_set_by_name(tmp_path):
    write_mnist(tmp_path)
    options = ["--rounds", "0", "--data", "torch/mnist", "--data-root", str(tmp_path), "--workers", "1"]
    assert main(["adasg", *options, "--out", str(tmp_path / "run")]) == 0
    assert '"images": 5' in (tmp_path / "run" / "summary.json").read_text()


def test_networks_of_channels_that_no_picture_has_are_told_so():
    for channels, means in ((2, 2), (3, 2)):
        with pytest.raises(ValueError, match=f"an input of {channels} channels, {means} means"):
            evaluation_transform(network(), InputSpace(channels, (8, 8), (0.5,) * means, (0.5,) * means))


def test_pairs_may_be_any_data_sets_of_torch():
    class Own(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.zeros(1, 8, 8), index

    ((_, labels),) = load_data(Own(), network(), 8, SPACE)
    assert labels.tolist() == [0, 1, 2]
