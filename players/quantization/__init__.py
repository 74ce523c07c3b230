"""Fake quantization: a network's weights and activations rounded to a few bits, in float arithmetic, differentiably."""

from zerosum.players.quantization.attention import separated
from zerosum.players.quantization.grids import Grid, fake_quantize
from zerosum.players.quantization.layers import calibrate, layer_bits, quantize
from zerosum.players.quantization.packing import load_packed, packed_state
from zerosum.players.quantization.precision import Bits, assign_bits, quantizable_layers
from zerosum.players.quantization.ranges import ActivationRange, WeightRange
from zerosum.players.quantization.scheme import Granularity, Scheme, Sums, Symmetry
from zerosum.players.quantization.table import LayerTable, describe_layers

__all__ = [
    "ActivationRange",
    "Bits",
    "Granularity",
    "Grid",
    "LayerTable",
    "Scheme",
    "Sums",
    "Symmetry",
    "WeightRange",
    "assign_bits",
    "calibrate",
    "describe_layers",
    "fake_quantize",
    "layer_bits",
    "load_packed",
    "packed_state",
    "quantizable_layers",
    "quantize",
    "separated",
]
