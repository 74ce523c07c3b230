"""The rules of the house: what each part may know of the others."""

import ast
import sys
from pathlib import Path

import pytest

import zerosum
from zerosum import objectives, players, recipes

PARTS = {
    module.__name__.rpartition(".")[2]: Path(module.__path__[0]) for module in (zerosum, objectives, players, recipes)
}
PARTS["runs"] = PARTS["zerosum"] / "runs"
HARNESS = {
    "run.py",
    "sweep.py",
    "report.py",
    "compare.py",
    "export.py",
    "memory.py",
    "__main__.py",
}  # of the harness, at the engine's address
IMPORTERS = {"import_module", "__import__", "find_spec", "run_module"}
_OTHERS = {"zerosum.players", "zerosum.objectives", "zerosum.recipes"}
KNOWN_OUTSIDE = {"zerosum": {"torch", "numpy"}, "objectives": {"torch", "einops"}}
FORBIDDEN = {
    "runs": _OTHERS | {"timm", "torchvision"},
    "objectives": {"zerosum"},
    "players": {"zerosum"},
}


def files(part):
    """Of a part without those inside it: installed, all lie in the engine's folder."""
    inside = {"runs", "players", "objectives", "recipes"} if part == "zerosum" else set()
    found = [path for path in PARTS[part].rglob("*.py") if path.relative_to(PARTS[part]).parts[0] not in inside]
    if part == "zerosum":
        found = [path for path in found if not (path.parent == PARTS[part] and path.name in HARNESS)]
    assert found
    return found


def imported(path):
    """Modules that a file names in import statements, also as strings that are given to a function that imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTERS:
            texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            yield from (str(text).rstrip(".") for text in texts)


def knows(module, name):
    return module == name or module.startswith(f"{name}.")


@pytest.mark.parametrize("part", FORBIDDEN)
def test_no_part_imports_what_it_must_not_know(part):
    for path in files(part):
        for module in imported(path):
            own = knows(module, f"zerosum.{part}")
            assert own or not any(knows(module, name) for name in FORBIDDEN[part]), f"{path}: {module}"


def test_the_engine_knows_torch_alone():
    """But for ``zerosum.load`` and ``zerosum.quantize``, which ask others when they are called."""
    for path in files("zerosum"):
        for module in imported(path):
            top = module.partition(".")[0]
            if top == "zerosum":
                doors = ("zerosum.runs", "zerosum.recipes.common")
                lazily = path == PARTS["zerosum"] / "__init__.py" and any(knows(module, door) for door in doors)
                upwards = any(knows(module, name) for name in _OTHERS | {"zerosum.runs"})
                assert lazily or not upwards, f"{path}: {module}"
            else:
                assert top in sys.stdlib_module_names or top in KNOWN_OUTSIDE["zerosum"], f"{path}: {module}"


def test_objectives_know_torch_and_einops():
    for path in files("objectives"):
        outside = {module.partition(".")[0] for module in imported(path)} - {"zerosum"} - sys.stdlib_module_names
        assert outside <= KNOWN_OUTSIDE["objectives"], path


def test_the_training_loop_exists_once():
    stepping = [
        f"{part}/{path.relative_to(PARTS[part]).as_posix()}"
        for part in PARTS
        for path in files(part)
        if "optimizer.step()" in (text := path.read_text(encoding="utf-8")) or ".backward()" in text
    ]
    assert stepping == ["zerosum/player.py"]


def test_files_are_read_in_one_sitting():
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for part in PARTS for path in PARTS[part].rglob("*.py")
    }
    assert not {str(path): lines for path, lines in lengths.items() if lines > 250}
    ranks = PARTS["zerosum"] / "ranks"
    assert sum(lengths[path] for path in files("zerosum") if path.parent != ranks) <= 2650
    assert sum(lengths[path] for path in ranks.glob("*.py")) <= 450


@pytest.mark.parametrize(
    "line",
    [
        "import zerosum.runs.session",
        "from zerosum.runs import Options",
        "from zerosum import runs",
        'import_module("zerosum.runs")',
        'importlib.import_module(f"zerosum.runs.{name}")',
        '__import__("zerosum.runs.run")',
    ],
)
def test_an_arrow_upwards_is_seen_however_it_is_written(line, tmp_path):
    (tmp_path / "part.py").write_text(line, encoding="utf-8")
    assert any(knows(module, "zerosum.runs") for module in imported(tmp_path / "part.py"))
