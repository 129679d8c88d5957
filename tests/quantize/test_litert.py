"""int8 for LiteRT on a real classifier of real digits."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.contract import TensorSpec
from edgekit.errors import QuantizeError
from edgekit.litert import compile_hub
from edgekit.quantize import Recipe, load_data, quantize_litert
from edgekit.quantize.data import Calibration
from edgekit.runtimes import Runner

SAMPLES = Path(__file__).parents[2] / "samples"
IMAGE = [TensorSpec("image", (1, 1, 8, 8))]


@pytest.fixture(scope="module")
def compiled():
    """The digit classifier with channels-last input, as a target for phones asks for it."""
    return compile_hub(hub.prepare(ir.load(SAMPLES / "digits.onnx")), input_layout="nhwc")


@pytest.fixture(scope="module")
def calibration():
    return load_data(str(SAMPLES / "digits_nchw_calibration.npz"), IMAGE)


@pytest.fixture(scope="module")
def test_set():
    return load_data(str(SAMPLES / "digits_nchw_test.npz"), IMAGE).feeds


def logits(artifact, feeds):
    runner = Runner(artifact.data, "tflite", artifact.inputs, artifact.outputs)
    return np.concatenate([runner.run(feed)["digit"] for feed in feeds]).astype(np.float64)


def cosine(a, b):
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


@pytest.mark.parametrize("precision", ["int8", "int16x8", "int8-dynamic"])
def test_it_is_still_the_same_classifier(compiled, calibration, test_set, precision):
    quantized = quantize_litert(compiled, precision, calibration)
    labels = np.load(SAMPLES / "digits_labels.npy")
    before, after = logits(compiled, test_set), logits(quantized, test_set)
    assert cosine(before, after) > 0.999
    assert (after.argmax(1) == labels).mean() > (before.argmax(1) == labels).mean() - 0.01
    assert quantized.inputs == compiled.inputs, "float32, in the compiled file's layout"
    assert quantized.notes == ()


def test_int8_computes_in_integers_between_one_quantize_and_one_dequantize(compiled, calibration):
    quantized = quantize_litert(compiled, "int8", calibration)
    added = {name: count for name, count in quantized.operators.items() if compiled.operators.get(name) != count}
    assert added == {"QUANTIZE": 1, "DEQUANTIZE": 1}


def test_ranges_do_not_depend_on_the_order_of_the_samples(compiled, calibration):
    turned = Calibration(tuple(reversed(calibration.feeds)), "npz", "reversed", "")
    assert quantize_litert(compiled, "int8", turned).data == quantize_litert(compiled, "int8", calibration).data


def test_a_recipe_keeps_operators_in_float(compiled, calibration):
    kept = quantize_litert(compiled, "int8", calibration, recipe=Recipe(layers={"*digit*": "float"}))
    assert kept.notes == ("in float: 1 FULLY_CONNECTED",)


def test_int8_without_calibration_data_says_what_to_pass(compiled):
    with pytest.raises(QuantizeError, match="measured on real inputs") as error:
        quantize_litert(compiled, "int8", None)
    assert "--calibration" in error.value.fix


def test_nothing_is_printed(compiled, calibration, capfd):
    quantize_litert(compiled, "int8", calibration)
    out, err = capfd.readouterr()
    assert out == ""
    assert "it/s" not in err, "no progress bar"
