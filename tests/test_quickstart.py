"""The notebook for who arrives from a search runs from its first cell to its last, and shows what its text says."""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
kernelspec = pytest.importorskip("ipykernel.kernelspec")
pytest.importorskip("onnxruntime")

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "quickstart.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook):
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def kept(notebook):
    """Top-1 by stage."""
    stages = re.findall(r"^(full precision|rounded|blocks reconstructed|as kept) +([\d.]+) %", text(notebook), re.M)
    assert len(stages) == 4
    return {stage: float(percent) for stage, percent in stages}


def assert_shows_what_it_says(notebook):
    top1 = kept(notebook)
    assert top1["full precision"] > 97
    assert top1["rounded"] < top1["full precision"] - 5
    assert top1["as kept"] > top1["full precision"] - 3
    assert "agreement with PyTorch: 100.0 % of 540 digits" in text(notebook)
    assert "the same logits, to the bit: True" in text(notebook)
    assert "\x1b" not in text(notebook)  # a kernel's FORCE_COLOR makes no terminal of it
    assert "round 1/" in text(notebook)
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    pages = [output.data["text/html"] for output in outputs(notebook) if "text/html" in output.get("data", {})]
    assert len(pictures) == 2
    assert ["<iframe" in page for page in pages] == [True]  # no line of progress is a page of its own


def test_it_runs_and_leaves_no_file(tmp_path, monkeypatch):
    kernelspec.install(prefix=str(tmp_path / "kernel"))  # of this Python, whatever others the user has
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "kernel" / "share" / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "here").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "here")}}
    )
    client.execute()  # raises where a cell fails
    assert_shows_what_it_says(notebook)
    assert os.listdir(tmp_path / "here") == []


def test_it_is_kept_as_it_ran():
    assert NOTEBOOK.stat().st_size < 1_000_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert_shows_what_it_says(notebook)
