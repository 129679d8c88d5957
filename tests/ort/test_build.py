"""ONNX Runtime artifacts of a real classifier of real digits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from edgekit import ort
from edgekit.contract import TensorSpec
from edgekit.errors import ArtifactError, QuantizeError
from edgekit.quantize import Calibration, Recipe, load_data

SAMPLES = Path(__file__).parents[2] / "samples"
IMAGE = [TensorSpec("image", (1, 1, 8, 8))]


# Of the digits: their last layer is too small for 4 bits (tests/quantize/test_weight_only.py), and 16 bits are LiteRT's alone.
MADE = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights")


@pytest.fixture(scope="module")
def calibration():
    return load_data(str(SAMPLES / "digits_nchw_calibration.npz"), IMAGE)


@pytest.fixture(scope="module")
def test_set():
    return [feed["image"] for feed in load_data(str(SAMPLES / "digits_nchw_test.npz"), IMAGE).feeds]


@pytest.fixture(scope="module")
def artifacts(calibration):
    return {p: ort.build(digits(), p, calibration=calibration) for p in ("fp32", "fp16", "int8", "int8-dynamic")}


def digits():
    return ir.load(SAMPLES / "digits.onnx")


def logits(model, images):
    session = onnxruntime.InferenceSession(model)
    return np.concatenate([session.run(["digit"], {"image": image})[0] for image in images])


@pytest.fixture(scope="module")
def source(test_set):
    return logits(str(SAMPLES / "digits.onnx"), test_set)


@pytest.mark.parametrize(
    ("precision", "cosine"), [("fp32", 1 - 1e-7), ("fp16", 0.9999), ("int8", 0.999), ("int8-dynamic", 0.999)]
)
def test_every_artifact_is_still_the_same_classifier(artifacts, source, test_set, precision, cosine):
    labels = np.load(SAMPLES / "digits_labels.npy")
    for artifact in artifacts[precision]:
        if artifact.format == "ort-config":
            continue
        found = logits(artifact.data, test_set)
        assert found.dtype == np.float32
        a, b = found.astype(np.float64), source.astype(np.float64)
        assert (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()) > cosine
        accuracy, before = ((y.argmax(1) == labels).mean() for y in (found, source))
        assert accuracy > before - 0.01


def test_smaller_precisions_are_smaller(artifacts):
    size = {p: sum(t.nbytes for t in weights(built[0])) for p, built in artifacts.items()}
    assert size["fp16"] < 0.51 * size["fp32"]
    assert size["int8"] < 0.5 * size["fp32"]  # a scale per channel weighs something in a model this small


def weights(artifact):
    model = onnx.load_model_from_string(artifact.data)
    return [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]


def test_the_fp32_file_needs_nothing_but_standard_onnx(artifacts):
    model = onnx.load_model_from_string(artifacts["fp32"][0].data)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.domain for opset in model.opset_import] == [""]


def test_inputs_and_outputs_keep_names_shapes_and_float32(artifacts):
    for built in artifacts.values():
        for artifact in built[:2]:
            if artifact.format != "ort-config":
                (image,), (digit,) = artifact.inputs, artifact.outputs
                assert (image.artifact, image.shape, image.dtype, image.permutation) == ("image", (1, 1, 8, 8), "float32", None)
                assert (digit.artifact, digit.shape, digit.dtype) == ("digit", (1, 10), "float32")


def test_the_required_operators_are_those_of_the_ort_file(artifacts):
    config = artifacts["int8"][2]
    assert (config.format, config.file) == ("ort-config", "model_int8.required_operators.config")
    lines = [line for line in config.data.decode().splitlines() if not line.startswith("#")]
    assert any(line.startswith("com.microsoft;1;") and "QLinear" in line for line in lines)
    assert all(os.sep not in line for line in lines), "no path of this machine"


def test_int8_weights_have_a_scale_per_channel(artifacts):
    model = onnx.load_model_from_string(artifacts["int8"][0].data)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    dequantized = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in tensors]
    kernels = [n for n in dequantized if tensors[n.input[0]].ndim == 4]
    assert kernels
    for node in kernels:
        weight, scale, zero = (tensors[name] for name in node.input)
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0],)
        assert not zero.any()


def test_int8_without_calibration_data_says_what_to_pass():
    with pytest.raises(QuantizeError, match="measured on real inputs") as error:
        ort.build(digits(), "int8")
    assert "--calibration" in error.value.fix


def test_a_recipe_keeps_nodes_in_float(calibration):
    recipe = Recipe(layers={"*": "float"}, samples=16)
    artifact = ort.build(digits(), "int8", calibration=calibration, recipe=recipe)[0]
    assert any("Conv" in note for note in artifact.notes)


@pytest.mark.parametrize("dilation", [1, 2])
def test_an_average_pool_with_dilations_can_be_quantized(dilation):
    """onnxruntime's int8 kernel does not know the attribute that opset 19 brought."""
    pads = [dilation - 1] * 4
    body = f"""<ir_version: 9, opset_import: ["": 20]> g (float[1,2,8,8] x) => (float[1,2,6,6] z)
        {{ y = Relu(x)  z = AveragePool<kernel_shape=[3,3], dilations=[{dilation},{dilation}], pads={pads}>(y) }}"""
    pool = ir.from_proto(onnx.parser.parse_model(body))
    feeds = [{"x": np.random.default_rng(i).uniform(-1, 1, (1, 2, 8, 8)).astype(np.float32)} for i in range(8)]
    data = Calibration(feeds, "npy", "here", "")
    want = onnxruntime.InferenceSession(ir.to_proto(pool).SerializeToString()).run(None, feeds[0])[0]
    for artifact in ort.build(pool, "int8", calibration=data)[:2]:
        found = onnxruntime.InferenceSession(artifact.data).run(None, feeds[0])[0]
        np.testing.assert_allclose(found, want, atol=0.02)


def test_a_model_that_onnxruntime_refuses_is_named():
    model = digits()
    next(node for node in model.graph if node.op_type == "Gemm").op_type = "Gemmm"
    with pytest.raises(ArtifactError, match=r"does not load model_fp32\.onnx"):
        ort.build(model, "fp32")


def test_the_hub_is_left_as_it_is(calibration):
    model = digits()
    before = ir.to_proto(model).SerializeToString()
    for precision in MADE:
        ort.build(model, precision, calibration=calibration)
    assert ir.to_proto(model).SerializeToString() == before


BUILD_IN_A_PROCESS = """
import hashlib, json, sys, tempfile
tempfile.tempdir = sys.argv[2]
import onnx_ir as ir
from edgekit import ort
from edgekit.contract import TensorSpec
from edgekit.quantize import load_data
data = load_data(sys.argv[1] + "/digits_nchw_calibration.npz", [TensorSpec("image", (1, 1, 8, 8))])
built = [a for p in sys.argv[3:] for a in ort.build(ir.load(sys.argv[1] + "/digits.onnx"), p, calibration=data)]
print(json.dumps({a.file: hashlib.sha256(a.data).hexdigest() for a in built}))
print(json.dumps([m for m in ("tensorflow", "torch") if m in sys.modules]))
"""


def test_another_process_writes_the_same_bytes_and_leaves_no_file(tmp_path):
    """Other hash seeds, other addresses; onnxruntime.tools and the quantizer must neither print nor leave temporary files."""
    digests = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", BUILD_IN_A_PROCESS, str(SAMPLES), str(tmp_path), *MADE]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        digests.append(json.loads(run.stdout.splitlines()[0]))
        assert json.loads(run.stdout.splitlines()[1]) == [], "an ONNX export loads no framework"
        assert len(run.stdout.splitlines()) == 2
    assert digests[0] == digests[1]
    assert list(tmp_path.iterdir()) == []
