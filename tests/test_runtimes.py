"""An artifact runs with the source's names and layout on both sides."""

import numpy as np
import onnx
import onnx.parser
import pytest

from edgekit.contract import Binding
from edgekit.errors import ArtifactError
from edgekit.ort.ort_format import to_ort_format
from edgekit.runtimes import Runner

X = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def doubled():
    """y = 2 x in ONNX, over any batch."""
    graph = "float[batch,2,3,4] x) => (float[batch,2,3,4] y) <float[1] two = {2.0}> { y = Mul(x, two) }"
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> g ({graph}').SerializeToString()


def names(shape, permutation=None, x="x", y="y"):
    return [Binding("x", x, shape, "float32", permutation)], [Binding("y", y, shape, "float32", permutation)]


@pytest.mark.parametrize("format", ["onnx", "ort"])
def test_onnx_runtime_from_bytes(format):
    data = doubled() if format == "onnx" else to_ort_format(doubled(), name="m.ort")
    runner = Runner(data, format, *names(("batch", 2, 3, 4)))
    np.testing.assert_array_equal(runner.run({"x": X})["y"], X * 2)


def test_onnx_runtime_from_a_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(doubled())
    runner = Runner(tmp_path / "m.onnx", "onnx", *names(("batch", 2, 3, 4)))
    batch = np.concatenate([X, X + 1])
    np.testing.assert_array_equal(runner.run({"x": batch})["y"], batch * 2)


def test_a_name_that_the_artifact_lacks_lists_those_that_it_has():
    with pytest.raises(ArtifactError) as error:
        Runner(doubled(), "onnx", *names((1, 2, 3, 4), x="image"))
    assert "no input named 'image'" in str(error.value)
    assert "its inputs are 'x'" in str(error.value)


@pytest.mark.parametrize("format", ["onnx", "ort", "tflite"])
@pytest.mark.parametrize("data", [b"garbage", b"", b"\x1c\0\0\0TFL3" + b"\0" * 40])
def test_garbage_does_not_load(format, data):
    with pytest.raises(ArtifactError, match="does not load"):
        Runner(data, format, *names((1, 2, 3, 4)))


def test_inputs_that_it_does_not_take():
    runner = Runner(doubled(), "onnx", *names((1, 2, 3, 4)))
    with pytest.raises(ArtifactError, match="fails while it runs"):
        runner.run({"x": X[..., :2]})


def test_a_scalar_stays_a_scalar():
    graph = "float[2] x, float rate) => (float[2] y) { y = Mul(x, rate) }"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> g ({graph}').SerializeToString()
    inputs = [Binding("x", "x", (2,), "float32"), Binding("rate", "rate", (), "float32")]
    runner = Runner(model, "onnx", inputs, [Binding("y", "y", (2,), "float32")])
    found = runner.run({"x": np.ones(2, np.float32), "rate": np.array(3.0, np.float32)})
    np.testing.assert_array_equal(found["y"], [3.0, 3.0])


def converted(make, signature_input):
    """A TFLite model by TensorFlow's own converter, with a signature."""
    tf = pytest.importorskip("tensorflow", reason="makes the TFLite model of this test")
    module = tf.Module()
    module.f = tf.function(make, input_signature=[tf.TensorSpec([None, 3, 4, 2], tf.float32, name=signature_input)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    return converter.convert()


@pytest.fixture(scope="module")
def tflite():
    return converted(lambda image: {"y": image * 2.0}, "image")


def test_tflite_in_another_layout_and_by_the_names_of_its_signature(tflite):
    runner = Runner(tflite, "tflite", *names(("batch", 3, 4, 2), (0, 2, 3, 1), x="image", y="y"))
    np.testing.assert_array_equal(runner.run({"x": X})["y"], X * 2)


def test_tflite_takes_another_batch_than_it_was_made_with(tflite):
    runner = Runner(tflite, "tflite", *names(("batch", 3, 4, 2), (0, 2, 3, 1), x="image", y="y"))
    for batch in (np.concatenate([X] * 3), X):
        np.testing.assert_array_equal(runner.run({"x": batch})["y"], batch * 2)


def test_tflite_refuses_a_shape_that_is_fixed(tflite):
    runner = Runner(tflite, "tflite", *names(("batch", 3, 4, 2), None, x="image", y="y"))
    with pytest.raises(ArtifactError, match="does not take these inputs"):
        runner.run({"x": np.zeros((1, 5, 5, 2), np.float32)})


def test_results_outlive_the_next_run(tflite):
    runner = Runner(tflite, "tflite", *names(("batch", 3, 4, 2), (0, 2, 3, 1), x="image", y="y"))
    first = runner.run({"x": X})["y"]
    runner.run({"x": X * 5})
    np.testing.assert_array_equal(first, X * 2)
