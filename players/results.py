"""A quantized network as what a run leaves behind (``zerosum.runs.results``)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from zerosum.players.blocks import BLOCKS
from zerosum.players.examination import CLASSES
from zerosum.players.export.command import ExportOptions, export
from zerosum.players.sections import sections
from zerosum.players.storage import QUANTIZED, load_quantized, read_description

__all__ = ["FILES", "ExportOptions", "card", "export", "load", "sections"]

_TASK = "image-classification"
FILES = (QUANTIZED, "layers.csv", BLOCKS, CLASSES)


def load(folder: Path, device: torch.device | str, into: nn.Module | None = None, trust: bool = False) -> nn.Module:
    """The quantized network in a run's folder; see :func:`zerosum.players.load_quantized`."""
    return load_quantized(folder / QUANTIZED, device, into, trust)


def card(folder: Path, name: str) -> ModelCardData:
    """What the Hub knows a quantized network by; accuracy, where it was measured."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    described = read_description(folder / QUANTIZED)
    bits = Counter(map(str, described.bits.values())).most_common(1)[0][0]
    measured = []
    if summary["after_top1"] is not None:
        of: dict[str, Any] = {
            "task_type": _TASK,
            "dataset_type": "image-folder",
            "dataset_name": f"{summary['images']:,} images",
        }
        for figure, title in {"after_top1": "top-1", "after_top5": "top-5", "agreement": "agreement"}.items():
            about: dict[str, Any] = {
                "metric_type": "accuracy",
                "metric_name": title,
                "metric_value": round(summary[figure], 2),
            }
            measured.append(EvalResult(**of, **about))
    return ModelCardData(
        library_name="zerosum",
        pipeline_tag=_TASK,
        tags=["quantization", "data-free-quantization", bits, described.architecture.name],
        model_name=name,
        eval_results=measured or None,
    )
