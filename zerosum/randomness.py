"""All random-number generators that a game may draw from: PyTorch's, NumPy's and Python's."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def seed_all(seed: int) -> None:
    """Start all of them from a seed."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Where they stand, as plain containers of tensors and numbers."""
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _cuda_devices()],
        "numpy": {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]}
        | {name: numpy[name] for name in ("has_gauss", "gauss")},
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let them go on from where :func:`random_state` found them."""
    torch.set_rng_state(state["torch"].cpu())
    for device, generator in zip(_cuda_devices(), state["cuda"], strict=False):
        torch.cuda.set_rng_state(generator.cpu(), device)
    numpy = state["numpy"]
    key = np.array(numpy["key"], dtype=np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _cuda_devices() -> list[int]:
    """All; of one process among several, its own alone, or each would take memory on every device."""
    if not torch.cuda.is_available():
        return []
    several = dist.is_available() and dist.is_initialized()
    return [torch.cuda.current_device()] if several else [*range(torch.cuda.device_count())]


@contextmanager
def kept_random_state() -> Iterator[None]:
    """What is drawn inside is drawn again after it."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
