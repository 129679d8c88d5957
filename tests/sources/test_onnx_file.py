"""ONNX files as sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.contract import TensorSpec
from edgekit.errors import InputError, SourceError
from edgekit.sources import open_source
from tests.sources.parity import worst_error


def dense(path: Path, *, batch: int | str = "batch", opset: int = 17, external: bool = False) -> Path:
    """`scores = relu(features @ weight)`, 8 features to 4 scores, as a file."""
    weight = numpy_helper.from_array(np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weight"], ["sums"]), helper.make_node("Relu", ["sums"], ["scores"])],
        "dense",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save_model(model, path, save_as_external_data=external, location="dense.data", size_threshold=0)
    return path


@pytest.mark.parametrize("opset", [7, 13, 17, 20])
def test_the_graph_agrees_with_the_reference(tmp_path: Path, opset: int) -> None:
    source = open_source(str(dense(tmp_path / "dense.onnx", opset=opset)))
    assert source.inputs == (TensorSpec("features", (1, 8)),)
    assert source.outputs == (TensorSpec("scores", (1, 4)),)
    assert worst_error(source) <= 1e-6


def test_an_open_dimension_is_fixed_or_kept(tmp_path: Path) -> None:
    path = str(dense(tmp_path / "dense.onnx"))
    assert open_source(path, inputs=[TensorSpec("features", (5, 8))]).outputs[0].shape == (5, 4)
    kept = open_source(path, dynamic=["batch"])
    assert kept.outputs[0].shape == ("batch", 4)
    assert worst_error(kept) <= 1e-6


@pytest.mark.parametrize("open_dimension", [-1, "?", ""])
def test_what_exporters_write_for_an_open_dimension(tmp_path: Path, open_dimension: int | str) -> None:
    """PaddlePaddle's says -1 and ?; the second is no name that two dimensions would share."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["middle"]), helper.make_node("Tanh", ["middle"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, open_dimension, open_dimension])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, open_dimension, open_dimension])],
        value_info=[helper.make_tensor_value_info("middle", TensorProto.FLOAT, [1, open_dimension, open_dimension])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "open.onnx")
    source = open_source(str(tmp_path / "open.onnx"), inputs=[TensorSpec("x", (1, 2, 3))])
    assert source.outputs == (TensorSpec("y", (1, 2, 3)),)
    assert worst_error(source) <= 1e-6
    middle = source.to_onnx().graph.node(0).outputs[0].shape
    assert middle is not None
    assert 2 not in [size for size in middle[2:] if isinstance(size, int)]
    with pytest.raises(InputError, match="open"):
        open_source(str(tmp_path / "open.onnx"))


def test_each_conversion_is_a_graph_of_its_own(tmp_path: Path) -> None:
    source = open_source(str(dense(tmp_path / "dense.onnx")))
    source.to_onnx().graph.inputs.clear()
    assert [value.name for value in source.to_onnx().graph.inputs] == ["features"]


def test_weights_listed_among_the_inputs_are_not_fed(tmp_path: Path) -> None:
    model = onnx.load(dense(tmp_path / "dense.onnx"))
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [8, 4]))
    onnx.save(model, tmp_path / "old.onnx")
    source = open_source(str(tmp_path / "old.onnx"))
    assert [spec.name for spec in source.inputs] == ["features"]
    assert worst_error(source) <= 1e-6


def test_external_data(tmp_path: Path) -> None:
    path = dense(tmp_path / "dense.onnx", external=True)
    source = open_source(str(path))
    assert worst_error(source) <= 1e-6
    inside = open_source(str(dense(tmp_path / "inside.onnx")))
    assert source.sha256 != inside.sha256

    data = tmp_path / "dense.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"'dense\.data' ends before the weights of 'weight'"):
        open_source(str(path))
    data.unlink()
    with pytest.raises(SourceError, match=r"'dense\.data', which is missing"):
        open_source(str(path))


def test_the_digest_follows_the_external_data(tmp_path: Path) -> None:
    path = dense(tmp_path / "dense.onnx", external=True)
    before = open_source(str(path)).sha256
    data = tmp_path / "dense.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert open_source(str(path)).sha256 != before


def test_feeds_are_checked(tmp_path: Path) -> None:
    source = open_source(str(dense(tmp_path / "dense.onnx")))
    with pytest.raises(InputError, match="must be 1x8:float32, not 2x8:float32"):
        source.run({"features": np.zeros((2, 8), np.float32)})
    with pytest.raises(InputError, match="not 1x8:float64"):
        source.run({"features": np.zeros((1, 8))})
    with pytest.raises(InputError, match="takes features, not pixels"):
        source.run({"pixels": np.zeros((1, 8), np.float32)})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not a model at all" * 50, "no valid ONNX model|no graph"), (b"\x08\x08", "no graph")],
)
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path / "broken.onnx"))


def test_a_truncated_file(tmp_path: Path) -> None:
    path = dense(tmp_path / "dense.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError):
        open_source(str(path))


def test_an_opset_that_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="opset 6, older than 7"):
        open_source(str(dense(tmp_path / "dense.onnx", opset=6)))


def test_an_invalid_graph(tmp_path: Path) -> None:
    model = onnx.load(dense(tmp_path / "dense.onnx"))
    model.graph.node[0].input[1] = "nowhere"
    onnx.save(model, tmp_path / "invalid.onnx")
    with pytest.raises(SourceError, match="invalid"):
        open_source(str(tmp_path / "invalid.onnx"))


def test_an_operator_that_onnxruntime_has_not(tmp_path: Path) -> None:
    model = onnx.load(dense(tmp_path / "dense.onnx"))
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "custom.onnx")
    with pytest.raises(SourceError, match="onnxruntime does not load"):
        open_source(str(tmp_path / "custom.onnx"))


@pytest.mark.parametrize("spec", ["nowhere.onnx", "nowhere.py:factory", "no.such.package:factory", "model.xyz", "README"])
def test_a_path_that_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.xyz").write_bytes(b"something")
    (tmp_path / "README").write_text("not a model")
    with pytest.raises(SourceError) as error:
        open_source(spec)
    assert error.value.fix


def test_an_onnx_model_loads_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    path = dense(tmp_path / "dense.onnx")
    script = (
        "import sys; from edgekit.sources import open_source; open_source(sys.argv[1]).to_onnx();"
        "print([name for name in ('tensorflow', 'keras', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
