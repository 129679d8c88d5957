"""What is in a file of any format that edgekit reads or writes."""

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub, ort
from edgekit.contract import TensorSpec
from edgekit.errors import SourceError
from edgekit.inspect import inspect
from edgekit.litert import PRECISIONS as COMPILED
from edgekit.litert import compile_hub
from edgekit.ort.ort_format import to_ort_format
from edgekit.quantize import PRECISIONS, Calibration, quantize_litert

SAMPLES = Path(__file__).parent.parent / "samples"


def test_onnx():
    found = inspect(SAMPLES / "digits.onnx")
    assert found.format == "onnx"
    assert found.inputs == (TensorSpec("image", (1, 1, 8, 8)),)
    assert found.outputs == (TensorSpec("digit", (1, 10)),)
    assert found.operators["Conv"] == 5
    assert found.precision == "fp32"
    assert found.weights["float32"].bytes == found.weights["float32"].elements * 4


def test_onnx_with_external_weights_reads_their_size_alone(tmp_path):
    model = onnx.load(SAMPLES / "digits.onnx")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    found = inspect(tmp_path / "m.onnx")
    assert found.bytes == (tmp_path / "m.onnx").stat().st_size + (tmp_path / "m.data").stat().st_size
    assert found.parameters == inspect(SAMPLES / "digits.onnx").parameters
    (tmp_path / "m.data").unlink()
    assert "weights in m.data, which is missing" in inspect(tmp_path / "m.onnx").notes


def test_onnx_counts_the_operators_inside_of_an_if(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 20]> g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] a) { a = Relu(x) }, else_branch = e () => (float[2] b) { b = Neg(x) }>
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    assert inspect(tmp_path / "m.onnx").operators == {"If": 1, "Neg": 1, "Relu": 1}


def test_ort(tmp_path):
    (tmp_path / "m.ort").write_bytes(to_ort_format((SAMPLES / "digits.onnx").read_bytes(), name="m.ort"))
    found = inspect(tmp_path / "m.ort")
    assert found.inputs == (TensorSpec("image", (1, 1, 8, 8)),)
    assert found.outputs == (TensorSpec("digit", (1, 10)),)
    assert sum(count for name, count in found.operators.items() if "Conv" in name) == 5


def test_keras_without_keras():
    found = inspect(SAMPLES / "digits.keras")
    assert found.inputs == (TensorSpec("image", ("?", 8, 8, 1)),)
    assert found.operators["DepthwiseConv2D"] == 2
    assert found.parameters == found.weights["float32"].elements > 3000


def test_a_lambda_layer_is_named_not_run(tmp_path):
    with zipfile.ZipFile(SAMPLES / "digits.keras") as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"class_name": "ReLU"', b'"class_name": "Lambda"'))
    assert any("Lambda" in note for note in inspect(tmp_path / "m.keras").notes)


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="makes the files of this test")
    folder = tmp_path_factory.mktemp("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)).eval()
    x = torch.zeros(1, 3, 8, 8)
    torch.export.save(torch.export.export(net, (x,)), folder / "net.pt2")
    torch.jit.save(torch.jit.trace(net, x), folder / "net.pt")
    torch.save(net.state_dict(), folder / "state.pt")
    torch.save(net, folder / "pickled.pt")
    return folder, sum(p.numel() for p in net.parameters())


def test_an_exported_program(torch_files):
    folder, parameters = torch_files
    found = inspect(folder / "net.pt2")
    assert [spec.shape for spec in found.inputs] == [(1, 3, 8, 8)]
    assert [spec.shape for spec in found.outputs] == [(1, 10)]
    assert found.operators["aten.conv2d.default"] == 1
    assert (found.parameters, found.precision) == (parameters, "fp32")


def test_torchscript(torch_files):
    folder, parameters = torch_files
    found = inspect(folder / "net.pt")
    assert found.format == "torchscript"
    assert found.operators["torch.relu"] == 1
    assert found.parameters == parameters


def test_a_state_dict_has_no_architecture(torch_files):
    folder, parameters = torch_files
    found = inspect(folder / "state.pt")
    assert (found.format, found.parameters) == ("pickle", parameters)
    assert any("state_dict" in note for note in found.notes)


def test_a_pickle_is_described_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(Bomb(), protocol=2))
    found = inspect(tmp_path / "m.pt")
    assert any("pathlib" in note and "would run code" in note for note in found.notes)
    assert not (tmp_path / "exploded").exists()


@pytest.fixture(scope="module")
def tensorflow_files(tmp_path_factory):
    tf = pytest.importorskip("tensorflow", reason="makes the files of this test")
    folder = tmp_path_factory.mktemp("tf")

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": tf.nn.relu(x @ self.w)}

    net = Net()
    tf.saved_model.save(net, folder / "saved", signatures=net.__call__.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "fp32.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "dynamic.tflite").write_bytes(converter.convert())
    converter.representative_dataset = lambda: ([np.ones((1, 64), np.float32)] for _ in range(3))
    (folder / "int8.tflite").write_bytes(converter.convert())
    return folder


@pytest.mark.parametrize(("file", "precision"), [("fp32", "fp32"), ("dynamic", "int8-dynamic"), ("int8", "int8")])
def test_tflite(tensorflow_files, file, precision):
    found = inspect(tensorflow_files / f"{file}.tflite")
    assert (found.inputs[0].name, found.outputs[0].name) == ("x", "y")
    assert found.inputs[0].shape[-1] == 64
    assert found.operators["FULLY_CONNECTED"] == 1
    assert found.precision == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_precision_of_what_edgekit_writes(tmp_path, precision):
    rng = np.random.default_rng(0)
    text = """<ir_version: 9, opset_import: ["" : 20]> g (float[1,3,8,8] x) => (float[1,64] y) {
        c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) f = Flatten(r) h = MatMul(f, w) t = Tanh(h) y = MatMul(t, v) }"""
    proto = onnx.parser.parse_model(text)
    shapes = {"k": (16, 3, 3, 3), "w": (1024, 64), "v": (64, 64)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = hub.prepare(ir.from_proto(proto))
    feeds = tuple({"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4))
    calibration = Calibration(feeds, "npz", "here", "")
    compiled = compile_hub(model, precision=precision if precision in COMPILED else "fp32")
    files = {"tflite": (compiled if precision in COMPILED else quantize_litert(compiled, precision, calibration)).data}
    if precision != "int16x8":
        files |= {a.format: a.data for a in ort.build(model, precision, calibration=calibration) if a.inputs}
    for format, data in files.items():
        (tmp_path / f"m.{format}").write_bytes(data)
        assert inspect(tmp_path / f"m.{format}").precision == precision, format


def test_four_bits_take_half_a_byte(tmp_path):
    table = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    text = """<ir_version: 9, opset_import: ["" : 20]> g (int64[3] x) => (float[3,64] y) { y = Gather(t, x) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "t"))
    model = hub.prepare(ir.from_proto(proto))
    (tmp_path / "m.tflite").write_bytes(compile_hub(model, precision="int4-weights").data)
    (tmp_path / "m.onnx").write_bytes(ort.build(model, "int4-weights")[0].data)
    for name in ("m.tflite", "m.onnx"):
        assert inspect(tmp_path / name).weights["int4"].bytes == 3200


def test_saved_model_without_tensorflow(tensorflow_files):
    found = inspect(tensorflow_files / "saved")
    assert found.inputs == (TensorSpec("x", ("?", 64)),)
    assert found.outputs == (TensorSpec("y", ("?", 32)),)
    assert found.operators["MatMul"] >= 1


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".ort", ".keras", ".h5", ".pt2", ".pt"])
@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"PK\x03\x04" + b"\0" * 200, b"\x1c\0\0\0TFL3" + b"\xff" * 100])
def test_garbage_is_an_error_of_ours(tmp_path, suffix, data):
    (tmp_path / f"m{suffix}").write_bytes(data)
    with pytest.raises(SourceError):
        inspect(tmp_path / f"m{suffix}")


@pytest.mark.parametrize("name", ["digits.onnx", "digits.keras"])
def test_a_truncated_file(tmp_path, name):
    data = (SAMPLES / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="damaged"):
        inspect(tmp_path / name)


def test_what_is_not_a_model(tmp_path):
    with pytest.raises(SourceError, match="no format that edgekit knows"):
        inspect(shutil.copy(SAMPLES / "digits.onnx", tmp_path / "model.txt"))
    with pytest.raises(SourceError, match="there is no file"):
        inspect(tmp_path / "none.onnx")
    with pytest.raises(SourceError, match=r"without saved_model\.pb"):
        inspect(tmp_path)
