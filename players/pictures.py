"""Pictures of what players make."""

from pathlib import Path

import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor

from players.backbones import InputSpace


def draw_samples(path: str | Path, images: Tensor, labels: Tensor, predictions: Tensor, space: InputSpace) -> None:
    """Draw images (N, channels, height, width) in normalised input space as a grid in a PNG file.

    Above each: the label it was made for, and after an arrow what the network saw where it saw another.
    """
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (space.mean, space.std))
    pixels = rearrange((images.detach().cpu() * std + mean).clamp(0, 1), "n c h w -> n h w c").numpy()
    columns = min(10, len(pixels))
    rows = -(-len(pixels) // columns)
    figure = Figure(figsize=(columns, rows * 1.2), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label, prediction in zip(axes.flat, pixels, labels.tolist(), predictions.tolist(), strict=False):
        axis.imshow(image, cmap="gray" if space.channels == 1 else None, vmin=0, vmax=1)
        axis.set_title(f"{label}" if label == prediction else f"{label} → {prediction}", fontsize=8)
    figure.savefig(path, dpi=110)
