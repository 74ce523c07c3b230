"""Networks that move, and what is done with them: loaded by name, quantized, measured, saved."""

from zerosum.players.architectures import Architecture, arguments_of
from zerosum.players.backbones import Backbone, find_backbone, load_backbone
from zerosum.players.data import batch_that_fits, load_data, number_of_classes, own_data
from zerosum.players.examination import CLASSES, Examination, accuracy, percent, predict, report
from zerosum.players.generator import ConditionalGenerator
from zerosum.players.pictures import draw_samples
from zerosum.players.progress import progress
from zerosum.players.quantization import (
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
    separated,
)
from zerosum.players.spaces import InputSpace, input_space, label_names, say_space
from zerosum.players.statistics import BatchNormTaps, PatchTaps, batchnorm_layers
from zerosum.players.storage import QUANTIZED, load_quantized, save_quantized

__all__ = [
    "CLASSES",
    "QUANTIZED",
    "ActivationRange",
    "Architecture",
    "Backbone",
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
    "arguments_of",
    "assign_bits",
    "batch_that_fits",
    "batchnorm_layers",
    "calibrate",
    "describe_layers",
    "draw_samples",
    "fake_quantize",
    "find_backbone",
    "input_space",
    "label_names",
    "layer_bits",
    "load_backbone",
    "load_data",
    "load_quantized",
    "number_of_classes",
    "own_data",
    "percent",
    "predict",
    "progress",
    "quantizable_layers",
    "quantize",
    "report",
    "save_quantized",
    "say_space",
    "separated",
]
