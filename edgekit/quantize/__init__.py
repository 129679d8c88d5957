"""Precisions, calibration data, and one quantization backend per runtime."""

from edgekit.quantize.conditioning import Conditioned, condition
from edgekit.quantize.data import Calibration, load_data
from edgekit.quantize.labels import load_labels
from edgekit.quantize.litert import quantize_litert
from edgekit.quantize.precision import PRECISIONS, parse_precision
from edgekit.quantize.recipe import Recipe, load_recipe

__all__ = [
    "PRECISIONS",
    "Calibration",
    "Conditioned",
    "Recipe",
    "condition",
    "load_data",
    "load_labels",
    "load_recipe",
    "parse_precision",
    "quantize_litert",
]
