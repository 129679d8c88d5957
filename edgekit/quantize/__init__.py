"""Precisions, calibration data, and one quantization backend per runtime."""

from edgekit.quantize.data import Calibration, load_data
from edgekit.quantize.precision import PRECISIONS, parse_precision

__all__ = ["PRECISIONS", "Calibration", "load_data", "parse_precision"]
