"""Networks that move, and what is done with them: loaded by name, quantized, measured, saved."""

from players.backbones import InputSpace, input_space, load_backbone
from players.data import load_data
from players.examination import Examination, percent_equal, predict, report
from players.generator import ConditionalGenerator
from players.pictures import draw_samples
from players.progress import progress
from players.quantization import Bits, calibrate, fake_quantize, quantize
from players.statistics import BatchNormTaps
from players.storage import load_quantized, save_quantized

__all__ = [
    "BatchNormTaps",
    "Bits",
    "ConditionalGenerator",
    "Examination",
    "InputSpace",
    "calibrate",
    "draw_samples",
    "fake_quantize",
    "input_space",
    "load_backbone",
    "load_data",
    "load_quantized",
    "percent_equal",
    "predict",
    "progress",
    "quantize",
    "report",
    "save_quantized",
]
