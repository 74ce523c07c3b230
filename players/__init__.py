"""Networks that move, and what is done with them: loaded by name, quantized, measured, saved."""

from players.backbones import InputSpace, input_space, load_backbone
from players.data import batch_that_fits, load_data
from players.examination import CLASSES, Examination, accuracy, percent, predict, report
from players.generator import ConditionalGenerator
from players.pictures import draw_samples
from players.progress import progress
from players.quantization import (
    ActivationRange,
    Bits,
    Granularity,
    Grid,
    LayerTable,
    Scheme,
    Sums,
    Symmetry,
    WeightRange,
    assign_bits,
    calibrate,
    describe_layers,
    fake_quantize,
    layer_bits,
    quantizable_layers,
    quantize,
)
from players.statistics import BatchNormTaps, PatchTaps, batchnorm_layers
from players.storage import QUANTIZED, load_quantized, save_quantized

__all__ = [
    "CLASSES",
    "QUANTIZED",
    "ActivationRange",
    "BatchNormTaps",
    "Bits",
    "ConditionalGenerator",
    "Examination",
    "Granularity",
    "Grid",
    "InputSpace",
    "LayerTable",
    "PatchTaps",
    "Scheme",
    "Sums",
    "Symmetry",
    "WeightRange",
    "accuracy",
    "assign_bits",
    "batch_that_fits",
    "batchnorm_layers",
    "calibrate",
    "describe_layers",
    "draw_samples",
    "fake_quantize",
    "input_space",
    "layer_bits",
    "load_backbone",
    "load_data",
    "load_quantized",
    "percent",
    "predict",
    "progress",
    "quantizable_layers",
    "quantize",
    "report",
    "save_quantized",
]
