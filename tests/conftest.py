import os
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("zerosum", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("zerosum")

# Most tensors here are small: a second thread costs more than it gives, and much more on a machine that is not idle.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)

# Out of a checkout, what is installed is tested without the pages and benchmarks that lie beside it there.
if not (Path(__file__).parents[1] / "README.md").exists():
    collect_ignore = ["test_docs.py", "test_readme.py", "test_run_onnx.py", "test_coverage.py", "test_round.py"]
    collect_ignore += [
        "test_league.py",
        "test_quickstart.py",
        "test_site.py",
        "players/export/test_onnx.py",
        "recipes/test_real.py",
    ]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    warnings.filterwarnings("error", message=".*lr_scheduler.step.*")


@pytest.fixture
def shared():
    """Path of a file of the workplace's shared folder; skips where it is absent."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is absent")
        return SHARED / name

    return path
