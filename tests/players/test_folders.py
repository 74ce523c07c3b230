"""Which class a folder is of, which files count, and what becomes of each kind of picture."""

import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn

from zerosum.players import InputSpace, load_data
from zerosum.players.data import class_names
from zerosum.players.folders import UnreadableImage, labels_of
from zerosum.players.modes import to_mode
from zerosum.runs.run import main

IDS = ImageNetInfo().label_names()
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def network(classes=10, channels=1):
    made = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))
    made.pretrained_cfg = {"crop_pct": 1.0}  # pictures are neither scaled nor cut
    return made


def space(channels=1):
    return InputSpace(channels, (8, 8), (0.0,) * channels, (1.0,) * channels)


def folder_of(path, *classes):
    for value, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        Image.new("L", (8, 8), value).save(path / name / "image.png")
    return str(path)


def labels(loader):
    """Of each class folder, by the brightness that :func:`folder_of` gave its image."""
    images, found = next(iter(loader))
    return dict(sorted(zip((images[:, 0, 0, 0] * 255).round().int().tolist(), found.tolist(), strict=True)))


def load(path, classes=10, channels=1, **options):
    return load_data(str(path), network(classes, channels), space=space(channels), **options)


@pytest.mark.parametrize(
    ("folders", "classes", "names", "expected"),
    [
        ([str(i) for i in range(12)], 12, None, list(range(12))),
        (["0", "3", "11"], 12, None, [0, 3, 11]),  # some are missing, and the others stay where they are
        (["00", "07", "10"], 11, None, [0, 7, 10]),
        (["9", "10", "11"], 3, None, [0, 1, 2]),  # no indices of three classes
        (["1", "01"], 2, None, [1, 0]),  # nor these, of one class
        (["tench", "shark"], 3, ["goldfish", "shark", "tench"], [2, 1]),
        (["1", "0"], 2, ["1", "0"], [0, 1]),  # names go before numbers
        ([IDS[2], IDS[990]], 1000, None, [2, 990]),
        (["2b", "10a", "C", "b"], 4, None, [0, 1, 3, 2]),
        (["²", "a"], 2, None, [1, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*natural order")
def test_folders_are_the_classes_that_they_are_named_after(tmp_path, folders, classes, names, expected):
    loader = load(folder_of(tmp_path, *folders), classes, names=names)
    assert labels(loader) == dict(enumerate(expected))
    assert class_names(loader) == dict(zip(expected, folders, strict=True))


def test_the_networks_config_has_its_names(tmp_path):
    folder = folder_of(tmp_path, "bee", "ant")
    for said in (["bee", "cow", "ant"], {"0": "bee", "2": "ant"}):
        insects = network(3)
        insects.pretrained_cfg = {"label_names": said}
        assert labels(load_data(folder, insects, space=space())) == {0: 0, 1: 2}
    insects.pretrained_cfg = {"label_names": ["bee", "ant"]}  # of another head
    with pytest.warns(UserWarning, match="2 class folders for 3 classes"):
        assert labels(load_data(folder, insects, space=space())) == {0: 1, 1: 0}
    with pytest.raises(ValueError, match="2 names, and the network has 3 classes"):
        load(folder, 3, names=["bee", "ant"])


def test_larger_kinds_of_imagenet_have_their_own_ids():
    ids = ImageNetInfo("imagenet-21k-goog").label_names()
    assert labels_of([ids[7], ids[21000]], 21843, {}, "x") == ({ids[7]: 7, ids[21000]: 21000}, "")


def test_a_name_among_names_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not named after one class .* as others are: misc; rename or remove"):
        load(folder_of(tmp_path / "ids", IDS[0], "misc"), 1000)
    with pytest.raises(ValueError, match="as others are: crane"):  # bird or machine
        load(folder_of(tmp_path / "names", "crane", "owl"), 3, names=["crane", "owl", "crane"])


def test_what_is_not_known_of_folders_is_said(tmp_path, recwarn):
    load(folder_of(tmp_path / "few", "a", "b"), 3)
    load(folder_of(tmp_path / "order", "c2", "c10"), 2)
    load(folder_of(tmp_path / "same", "c", "d"), 2)
    few, order = (str(warning.message) for warning in recwarn)
    assert few.endswith("2 class folders for 3 classes; they are taken for the first, in natural order; their classes' "
                        "indices as names (0 to 2) would say which they are")  # fmt: skip
    assert "class folders are taken in natural order (2 before 10), which is not torchvision's; their" in order


def test_what_is_hidden_does_not_count(tmp_path, recwarn):
    folder_of(tmp_path, "a", "b", ".ipynb_checkpoints")
    for name in ("._image.png", ".ipynb_checkpoints/image-checkpoint.png"):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"no image")
    assert labels(load(tmp_path, 2)) == {0: 0, 1: 1}
    assert not recwarn.list


def test_what_is_left_out_is_counted(tmp_path):
    folder_of(tmp_path, "a", "b")
    for name in ("a/notes.txt", "a/LICENSE", "b/deep/.thumbs/x.png", "b/x.TXT", "loose.png", "readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning) as said:  # noqa: PT030 (two, looked at below)
        assert len(load(tmp_path, 2).dataset) == 2
    loose, suffixes = (str(warning.message).partition(": ")[2] for warning in said)
    assert loose == "1 images are left out, which lie in no class folder (loose.png)"
    assert re.fullmatch(r"3 files are left out for their suffix \((.txt, none|none, .txt)\)", suffixes)


def test_an_empty_class_folder_is_named(tmp_path):
    folder_of(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in the class folder c; remove it, or fill it"):
        load(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    for name in "abc":
        (tmp_path / name / "image.png").unlink(missing_ok=True)
        (tmp_path / name).rmdir()
    with pytest.raises(FileNotFoundError, match="no images there in class folders, but 1 images; expected one folder"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "gif", "JPG", "bmp", "tiff", "webp", "pgm", "tga", "jp2"])
def test_suffixes_that_pillow_reads_are_read(tmp_path, suffix):
    (tmp_path / "0").mkdir()
    kind = {"jfif": "jpeg", "jpe": "jpeg", "jpg": "jpeg", "pgm": "ppm", "jp2": "jpeg2000"}
    frames = {"save_all": True, "append_images": [Image.new("L", (8, 8), 9)]} if suffix == "gif" else {}
    Image.new("L", (8, 8), 200).save(
        tmp_path / "0" / f"x.{suffix}", kind.get(suffix.lower(), suffix), **frames
    )  # of several frames the first
    ((images, _),) = load(tmp_path)
    torch.testing.assert_close(images, torch.full((1, 1, 8, 8), 200 / 255), atol=0.01, rtol=0)


def kinds():
    """Pictures of the same grey in every mode."""
    grey, palette = Image.fromarray(GREY), Image.fromarray(GREY).convert("P")
    clear = palette.copy()
    clear.info["transparency"] = bytes(range(256))
    return {
        "grey": (grey, "png"),
        "16 bits": (Image.fromarray(GREY.astype(np.uint16) * 257), "png"),
        "16 bits of a Macintosh": (Image.fromarray(GREY.astype(">u2") * 257), "tiff"),
        "16 bits in 32": (Image.fromarray(GREY.astype(np.int32) * 257), "tiff"),
        "floats": (Image.fromarray((GREY / 255).astype(np.float32)), "tiff"),
        "colour": (grey.convert("RGB"), "png"),
        "alpha": (Image.merge("RGBA", [grey] * 3 + [Image.new("L", (8, 8), 7)]), "png"),
        "grey and alpha": (Image.merge("LA", [grey, Image.new("L", (8, 8), 7)]), "png"),
        "palette": (palette, "gif"),
        "palette with alpha": (clear, "png"),
        "print": (Image.merge("CMYK", [Image.new("L", (8, 8))] * 3 + [Image.fromarray(255 - GREY)]), "tiff"),
    }


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", kinds())
@pytest.mark.filterwarnings("error")
def test_every_kind_of_picture_comes_as_the_network_has_channels(tmp_path, kind, channels):
    picture, suffix = kinds()[kind]
    (tmp_path / "0").mkdir()
    picture.save(tmp_path / "0" / f"x.{suffix}")
    loader = load(tmp_path, 1, channels)
    ((images, _),) = loader
    expected = torch.from_numpy(GREY / np.float32(255)).expand(1, min(channels, 3), 8, 8)
    torch.testing.assert_close(images[:, :3], expected, atol=0.003, rtol=0)
    if channels == 4 and "alpha" not in kind:
        assert (images[:, 3] == 1).all()
    elif channels == 4 and kind != "palette with alpha":
        torch.testing.assert_close(images[:, 3], torch.full((1, 8, 8), 7 / 255))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 200, np.int32), "grey values from 200 to 200, and white should be 65535"),
        (np.full((8, 8), 70000, np.int32), "from 70000 to 70000"),
        (np.full((8, 8), -1, np.int32), "from -1 to -1"),
        (np.full((8, 8), 1.5, np.float32), "from 1.5 to 1.5, and white should be 1"),
        (np.full((8, 8), np.nan, np.float32), "from nan to nan"),
    ],
)
def test_grey_of_which_nobody_knows_the_white_is_refused_by_name(tmp_path, values, message):
    (tmp_path / "0").mkdir()
    Image.fromarray(values).save(tmp_path / "0" / "x.tiff")
    with pytest.raises(UnreadableImage, match=rf"data {tmp_path}/0/x\.tiff: .*{message}"):
        next(iter(load(tmp_path)))


def test_black_stays_black():
    assert np.asarray(to_mode(Image.fromarray(np.zeros((8, 8), np.int32)), "L")).max() == 0


def test_rotation_is_left_to_the_pipeline(tmp_path):
    """timm's and torchvision's leave it off, with which networks are trained."""
    (tmp_path / "0").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "0" / "x.png", exif=turned)
    ((images, _),) = load(tmp_path)
    torch.testing.assert_close(images[0, 0], torch.from_numpy(GREY / np.float32(255)))


def test_oblong_networks_see_oblong_pictures(tmp_path):
    (tmp_path / "0").mkdir()
    Image.fromarray(np.repeat(GREY[:4], 2, axis=0)).resize((64, 32)).save(tmp_path / "0" / "x.png")
    oblong = InputSpace(4, (8, 16), (0.0,) * 4, (1.0,) * 4)
    ((images, _),) = load_data(str(tmp_path), nn.Sequential(nn.Flatten(), nn.Linear(512, 10)), space=oblong)
    assert images.shape == (1, 4, 8, 16)


def spoilt(tmp_path):
    folder_of(tmp_path, *map(str, range(10)))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "3" / "bad.jpg")
    whole = (tmp_path / "3" / "bad.jpg").read_bytes()
    (tmp_path / "3" / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "3" / "bad.jpg"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named(tmp_path, workers):
    path = spoilt(tmp_path)
    with pytest.raises(ValueError, match=r"^data \S*/3/bad\.jpg: image file is truncated .*; mend it, or remove it$"):
        list(load(tmp_path, workers=workers))
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n")  # which Pillow would have run
    with pytest.raises(OSError, match=r"^data \S*/3/bad\.jpg: no picture of a kind that is known; mend it, or remove"):
        list(load(tmp_path, workers=workers))


def test_a_damaged_file_is_named_before_the_first_round(tmp_path, capsys):
    path = spoilt(tmp_path / "images")
    options = ["--rounds", "0", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "run")]
    assert main(["adasg", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"data {path}: image file is truncated" in line
    assert not (tmp_path / "run").exists()


def test_folders_go_to_processes_that_inherit_nothing(tmp_path):
    """As on Windows and macOS."""
    dataset = pickle.loads(pickle.dumps(load(folder_of(tmp_path, *map(str, range(10)))).dataset))
    assert dataset[3][1] == 3
    assert len(dataset) == 10
