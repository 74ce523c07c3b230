"""How much memory there is to be had."""

import torch

_ELSEWHERE = 2**30


def spare_memory(device: torch.device) -> int:
    """Bytes that a tensor, or what depends on one choice, may take: a quarter of what is free on CUDA, else 1 GiB."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else _ELSEWHERE
