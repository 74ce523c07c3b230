"""Whether networks compute in bfloat16 or in float32 while they play, where the user leaves that to the machine."""

import time
from collections.abc import Callable
from typing import Literal

import torch
from rich.console import Console
from torch import nn

from zerosum.players import InputSpace, input_space
from zerosum.randomness import kept_random_state
from zerosum.recipes.common.effort import multiply_accumulates, wait_for_device

_LEAST = 10**8  # multiply-accumulates of a batch; below, calls cost more than what they compute
_PROBED = 10**9  # of the batch that is tried
_SECONDS = 1.0
_PAIRS = 3  # at least
_WORTH_IT = 1.2  # times as fast; of less, too little is left in a whole run

Precision = Literal["fp32", "bf16"]


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Inside, networks compute in bfloat16 where ``precision`` is ``"bf16"``, and else in what they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it: AVX512-BF16 (or AMX), or CUDA's from compute capability 8.0 on."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked: Callable[[], bool] = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # private as yet
    return asked()


def fast_precision(network: nn.Module, batch_size: int, console: Console) -> Precision:
    """The one that a network, which says what it takes, is fast in where it is; said on the ``console`` after a
    trial."""
    times = faster_in_bfloat16(network, input_space(network), batch_size)
    if times is None:
        return "fp32"
    fast: Precision = "bf16" if times >= _WORTH_IT else "fp32"
    console.print(f"precision: {fast}, for bf16 is {times:.1f} times as fast as fp32 on a trial of a second")
    return fast


def faster_in_bfloat16(network: nn.Module, space: InputSpace, batch_size: int) -> float | None:
    """How many times as fast a network, in eval mode, goes forward and backward as in float32: measured here and now,
    in turns, for a second or three turns, or until it is slower. None where there are no instructions for it, or the
    network is too small to gain by them."""
    device = next(network.parameters()).device
    operations = multiply_accumulates(network, space)
    if not has_bfloat16(device) or batch_size * operations < _LEAST:
        return None
    count = max(1, min(batch_size, _PROBED // operations))
    network = network.to(memory_format=torch.channels_last)
    with kept_random_state():
        images = torch.randn(count, space.channels, *space.size, device=device)
    images = images.to(memory_format=torch.channels_last).requires_grad_(True)
    wanted = [images, *(value for value in network.parameters() if value.requires_grad)]

    def seconds(precision: Precision) -> float:
        wait_for_device()
        started = time.perf_counter()
        with computing_in(precision, device):
            loss = network(images).float().square().mean()
        torch.autograd.grad(loss, wanted, allow_unused=True)
        wait_for_device()
        return time.perf_counter() - started

    least: dict[Precision, float] = {"fp32": float("inf"), "bf16": float("inf")}
    for precision in least:
        seconds(precision)  # the first is slower: kernels are chosen, memory is asked for
    began = time.perf_counter()
    turns = 0
    while turns < _PAIRS or time.perf_counter() - began < _SECONDS:
        for precision in least:
            least[precision] = min(least[precision], seconds(precision))
        turns += 1
        if least["bf16"] > least["fp32"]:
            break
    return least["fp32"] / least["bf16"]
