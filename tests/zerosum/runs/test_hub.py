"""The Hub's form of a run: what is in it, what is not, and the same network out of it."""

import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from PIL import Image

import zerosum
from zerosum.runs import hub
from zerosum.runs.run import main

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere of mine") / "run"
    few = ["--rounds", "2", "--warmup", "1", "--block-steps", "1", "--pool", "8", "--calibration", "1"]
    assert main(["adasg", *few, "--bits", "w3a4", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def repository(run, tmp_path):
    hub.write_repository(run, tmp_path, "org/digits")
    return tmp_path


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """Where the Hub's client keeps what it fetched, and asks nobody."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def test_the_network_comes_back_to_the_bit(run, repository, cache):
    kept = cache / "models--org--digits"
    shutil.copytree(repository, kept / "snapshots" / REVISION)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(REVISION)
    images = torch.randn(4, 1, 8, 8)
    expected = zerosum.load(run)(images)
    assert torch.equal(zerosum.load("hf://org/digits")(images), expected)
    assert torch.equal(zerosum.load(f"hf://org/digits@{REVISION}")(images), expected)


def test_a_repository_has_a_card_and_nothing_of_this_machine(run, repository):
    _, head, text = (repository / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(head)
    assert (about["library_name"], about["pipeline_tag"]) == ("zerosum", "image-classification")
    assert {"quantization", "w3a4", "digits_resnet8"} <= set(about["tags"])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    figures = {m["name"]: m["value"] for m in about["model-index"][0]["results"][0]["metrics"]}
    assert figures["top-1"] == round(summary["after_top1"], 2)
    assert 'zerosum.load("hf://org/digits")' in text
    assert "python -m zerosum.run adasg" in text or "zerosum.run adasg --rounds 2" in text
    shown = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert {"pictures/game.png", "pictures/round-000007.png"} <= set(shown)
    for name in shown:
        with Image.open(repository / name) as image:
            assert image.format == "PNG"
    written = [path for path in repository.rglob("*") if path.suffix in (".md", ".json", ".csv")]
    assert len(written) >= 5
    assert not [path for path in written if "somewhere of mine" in path.read_text(encoding="utf-8")]
    config = json.loads((repository / "config.json").read_text(encoding="utf-8"))
    assert config["library_name"] == "zerosum"
    assert not {"architecture", "model_type"} & config.keys()  # timm's and transformers'


def test_it_is_pushed_whole(run, monkeypatch, tmp_path):
    asked = {}

    def create(self, repo_id, **options):
        asked.update(options, repository=repo_id)
        return f"https://huggingface.co/{repo_id}"

    def upload(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert zerosum.push_to_hub(run, "org/digits", private=True) == "https://huggingface.co/org/digits"
    assert asked == {"repository": "org/digits", "private": True, "exist_ok": True}
    pushed = {path.name for path in (tmp_path / "hub" / "org" / "digits").iterdir()}
    assert {"README.md", "config.json", "summary.json", "quantized.safetensors", "layers.csv", "pictures"} <= pushed


def test_what_cannot_be_says_so(run, cache, tmp_path):
    with pytest.raises(ConnectionError, match=r"hf://org/other: the Hub did not answer as expected"):
        zerosum.load("hf://org/other")
    with pytest.raises(ValueError, match="expected hf://ORG/NAME"):
        zerosum.load("hf://org/name/more")
    with pytest.raises(FileNotFoundError, match="no run"):
        zerosum.push_to_hub(tmp_path, "org/name")
