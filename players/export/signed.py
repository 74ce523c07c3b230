"""Levels around 0, as kernels for integers want weights."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_OVERFLOW = 64  # twice that, times 255, is the last that fits in 16 bits


def around_middle(
    levels: NDArray[Any], zero_point: NDArray[Any], bits: int
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Levels of 0 … 2^bits - 1 and their zero points, less 2^(bits-1)."""
    middle = 2 ** (bits - 1)
    return levels.astype(np.int16) - middle, zero_point.astype(np.int16) - middle


def around_0(
    levels: NDArray[Any], zero_point: NDArray[Any], scale: NDArray[Any], bits: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same weight with zero at 0, where int8 has room for that.

    Of fewer than 8 bits always, and on a grid that is finer by a power of two: no sum of two overflows, and biases can
    be rounded to steps as fine as those of 8 bits. Of 8 bits on a symmetric grid that BatchNorm mirrored, with the
    outermost level a step nearer.

    Args:
        levels, zero_point: of :func:`around_middle`.
    """
    moved, origin = levels - zero_point, np.zeros_like(zero_point)
    if bits < 8:
        finer = 2 ** max(0, math.floor(math.log2(_NO_OVERFLOW / max(1, int(np.abs(moved).max())))))
        return finer * moved, origin, scale / np.float32(finer)
    if zero_point.min() >= -1 and zero_point.max() <= 0:
        return np.minimum(moved, 127), origin, scale
    return levels, zero_point, scale
