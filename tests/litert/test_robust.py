"""What is wrong with a file is said before anything is compiled: one broken model each, and a few hundred mutated ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgekit import litert
from edgekit.errors import CompileError, EdgekitError, SourceError
from edgekit.onnx_file import BIG, read_onnx

from .running import model

ROOT = Path(__file__).resolve().parent.parent.parent
RELU = "net (float[2,3] x) => (float[2,3] y) { a = Relu(x)\n y = Add(a, w) }"


def network() -> ModelProto:
    return model(RELU, w=np.ones((2, 3), np.float32))


def _undefined(proto: ModelProto) -> None:
    proto.graph.node[1].input[1] = "nobody"


def _cycle(proto: ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def _attribute(proto: ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))


def _too_many_inputs(proto: ModelProto) -> None:
    proto.graph.node[0].input.append("w")


def _short_weights(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]


def _huge_weights(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]


def _foreign_file(proto: ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def _recursive(proto: ModelProto) -> None:
    node = helper.make_node("f", ["x"], ["a"], domain="own")
    proto.functions.append(helper.make_function("own", "f", ["x"], ["a"], [node], list(proto.opset_import)))
    proto.graph.node[0].CopyFrom(node)
    proto.opset_import.append(helper.make_opsetid("own", 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_undefined, "'nobody' is read, and nothing makes it"),
        (_cycle, "form a cycle"),
        (_attribute, "no attribute 'alpha'"),
        (_too_many_inputs, "has 2 inputs, not 1"),
        (_short_weights, "23 stored items, not 24"),
        (_huge_weights, "stored items, not"),
        (_foreign_file, "outside of the model's folder"),
        (_recursive, "cannot be expanded"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(spoil: Callable[[ModelProto], None], message: str, tmp_path: Path) -> None:
    proto = network()
    spoil(proto)
    path = tmp_path / "broken.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(SourceError, match=message) as error:
        litert.compile(path)
    assert error.value.where
    assert error.value.fix
    assert list(tmp_path.iterdir()) == [path]


def test_names_must_be_text() -> None:
    data = network().SerializeToString().replace(b"Relu", b"Re\xffu")
    with pytest.raises(SourceError, match="not UTF-8"):
        litert.compile(data)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    proto = model("n (float[1,200] x) => (float[1,200] y) { y = MatMul(x, w) }", w=np.ones((200, 200), np.float32))
    data = proto.SerializeToString()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError):
        litert.compile(path)


def test_an_operator_of_another_domain_is_not_taken_for_onnx_own() -> None:
    proto = network()
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3]))
    with pytest.raises(CompileError, match=r"no lowering to LiteRT for com.example.Relu"):
        litert.compile(proto)


def test_an_unexpected_fault_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(node: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setitem(litert.lower.LOWERINGS, "Relu", broken)
    with pytest.raises(CompileError, match=r"Relu cannot be compiled \(IndexError: list index out of range\)") as error:
        litert.compile(network())
    assert "operator Relu" in str(error.value.where)
    assert isinstance(error.value.__cause__, IndexError)


def _values(path: Path) -> dict[str, np.ndarray]:
    weights = read_onnx(path).model.graph.initializers.values()
    return {value.name or "": value.const_value.numpy() for value in weights if value.const_value is not None}


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = BIG // 64 * 2
    return {
        "raw": rng.standard_normal((rows, 16)).astype(np.float32),
        "half": rng.standard_normal((rows, 32)).astype(np.float16),
        "ints": rng.integers(-5, 5, (rows, 8)),
        "small": np.arange(3, dtype=np.float32),
    }


def test_large_weights_are_views_of_the_file(tmp_path: Path) -> None:
    weights = _weights()
    listed = helper.make_tensor("listed", TensorProto.FLOAT, weights["raw"].shape, weights["raw"].ravel())  # in float_data
    proto = model("n (float[1] x) => (float[1] y) { y = Relu(x) }", **weights)
    proto.graph.initializer.append(listed)
    path = tmp_path / "plain.onnx"
    path.write_bytes(proto.SerializeToString())
    found = _values(path)
    for name, array in (*weights.items(), ("listed", weights["raw"])):
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.owndata is False or name == "small"
        assert found[name].flags.writeable is False or name == "small"


def test_a_large_constant_inside_of_a_branch_is_found(tmp_path: Path) -> None:
    proto = model(
        """n (float[2,20000] x, bool c) => (float[2,20000] y) {
            y = If(c) <then_branch = t () => (float[2,20000] a) { k = Constant()\n a = Add(x, k) },
                       else_branch = e () => (float[2,20000] b) { b = Identity(x) }>
        }"""
    )
    array = np.random.default_rng(0).standard_normal((2, 20000)).astype(np.float32)
    branch = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    branch.node[0].attribute.append(helper.make_attribute("value", numpy_helper.from_array(array)))
    path = tmp_path / "branch.onnx"
    path.write_bytes(proto.SerializeToString())
    (node,) = read_onnx(path).model.graph
    inner = next(iter(node.attributes["then_branch"].as_graph()))
    np.testing.assert_array_equal(inner.attributes["value"].as_tensor().numpy(), array)


def test_external_data_is_mapped_and_checked(tmp_path: Path) -> None:
    weights = _weights()
    proto = model("n (float[1] x) => (float[1] y) { y = Relu(x) }", **weights)
    path = tmp_path / "split.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="split.data", size_threshold=1000)
    for name, array in _values(path).items():
        np.testing.assert_array_equal(array, weights[name])
    assert read_onnx(path).external == (tmp_path / "split.data",)
    data = tmp_path / "split.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(SourceError, match="ends before the weights"):
        read_onnx(path)
    data.unlink()
    with pytest.raises(SourceError, match="missing"):
        read_onnx(path)


def test_linked_files_of_a_cache_are_read(tmp_path: Path) -> None:
    """A cache keeps the files under other names in one folder, and gives links to them in another."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    weights = _weights()
    proto = model("n (float[1] x) => (float[1] y) { y = Relu(x) }", **weights)
    onnx.save(proto, blobs / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1000)
    for name in ("m.onnx", "m.data"):
        (snapshot / name).symlink_to(blobs / name)
    np.testing.assert_array_equal(_values(snapshot / "m.onnx")["raw"], weights["raw"])


def test_a_model_in_memory_reads_no_files() -> None:
    proto = network()
    _foreign_file(proto)
    with pytest.raises(EdgekitError, match="in another file"):
        litert.compile(proto)


def test_mutated_files_end_in_an_error_or_in_the_right_result() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz_compile.py"), "--small", "--cases", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "agrees" in done.stdout
