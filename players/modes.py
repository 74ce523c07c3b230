"""Pictures of every kind as networks take them."""

from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

Transform = Callable[[Image.Image], Tensor]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of pictures for a network, by its channels."""


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture in another of Pillow's modes.

    Alpha is left off where the mode has none, whatever colour lies under it, as torchvision and timm do, and is opaque
    where the picture has none. Grey of 16 bits is scaled from 0…65535 to 0…255, of floats from 0…1.

    Raises:
        ValueError: no way from mode to mode is known, or it is not known which value is white.
    """
    if image.mode.startswith(("I", "F")):
        image = _grey(image)
    elif "transparency" in image.info:  # a colour, or one alpha for each of a palette's
        image = image.convert("RGBA")
    return image.convert(mode)


def _grey(image: Image.Image) -> Image.Image:
    """8-bit grey of what has more bits."""
    values, white = np.asarray(image), 1 if image.mode == "F" else 2**16 - 1
    low, high = values.min(), values.max()
    eight_bits = image.mode == "I" and 0 < high < 2**8  # kept in 32
    if not 0 <= low <= high <= white or eight_bits:
        raise ValueError(f"grey values from {low} to {high}, and white should be {white}; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
