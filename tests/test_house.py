"""The rules of the house: what each part may know of the others."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "zerosum": {"players", "objectives", "recipes", "timm", "torchvision"},
    "objectives": {"players", "zerosum", "recipes", "timm", "torchvision"},
    "players": {"zerosum", "objectives", "recipes"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_part_imports_what_it_must_not_know(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not set(imported(path)) & FORBIDDEN[package], path


def test_the_training_loop_exists_once():
    stepping = [
        path.relative_to(ROOT).as_posix()
        for package in ("zerosum", "players", "objectives", "recipes")
        for path in (ROOT / package).rglob("*.py")
        if "optimizer.step()" in path.read_text() or ".backward()" in path.read_text()
    ]
    assert stepping == ["zerosum/player.py"]
