"""Pictures of what players make."""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from zerosum.players.backbones import InputSpace

_COLUMNS = 10
_DESCRIPTION = "Above each image is the label that it was made for, and behind an arrow what the network saw instead."


def draw_samples(path: str | Path, images: Tensor, labels: Tensor, predictions: Tensor, space: InputSpace) -> None:
    """Draw images (N, channels, height, width) in normalised input space as a grid in a PNG file.

    Above each: the label it was made for, and after an arrow what the network saw where it saw another.
    """
    from matplotlib.figure import Figure  # takes its time

    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (space.mean, space.std))
    pixels = (images.detach().cpu() * std + mean).clamp(0, 1)
    columns = min(_COLUMNS, len(pixels))
    rows = -(-len(pixels) // columns)
    height, width = space.size
    margin = max(1, height // 4)  # above each, for its label
    tiles = nn.functional.pad(pixels, (0, margin, margin, 0), value=1)
    tiles = torch.cat([tiles, torch.ones(rows * columns - len(tiles), *tiles.shape[1:])])
    grid = rearrange(tiles, "(r c) d h w -> (r h) (c w) d", r=rows)
    figure = Figure(figsize=(columns, rows * (height + margin) / (width + margin)))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.axis("off")
    axis.imshow(grid.numpy(), cmap="gray" if space.channels == 1 else None, vmin=0, vmax=1)
    for index, (label, prediction) in enumerate(zip(labels.tolist(), predictions.tolist(), strict=True)):
        row, column = divmod(index, columns)
        text = f"{label}" if label == prediction else f"{label} → {prediction}"
        x, y = column * (width + margin) + width / 2 - 0.5, row * (height + margin) + margin - 1
        axis.text(x, y, text, ha="center", va="bottom", fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Description": _DESCRIPTION})
