"""The public face of the compiler: what it takes, what it promises about names, shapes and layouts, how it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit import hub, litert
from edgekit.errors import CompileError, InputError, SourceError, UnsupportedOperator

from .running import artifact_results, model, operators, relative_error, source_results

RNG = np.random.default_rng(0)


def small_cnn() -> onnx.ModelProto:
    return model(
        """net (float[1,3,16,16] image) => (float[1,10] digit) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, w1, b1)
            b = Relu(a)
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group=8>(b, w2)
            d = Clip(c, zero, six)
            e = GlobalAveragePool(d)
            f = Flatten(e)
            digit = Gemm<transB=1>(f, w3, b3)
        }""",
        w1=RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
        b1=RNG.normal(size=8).astype(np.float32),
        w2=RNG.normal(size=(8, 1, 3, 3)).astype(np.float32),
        zero=np.float32(0),
        six=np.float32(6),
        w3=RNG.normal(size=(10, 8)).astype(np.float32),
        b3=RNG.normal(size=10).astype(np.float32),
    )


def feature_maps() -> onnx.ModelProto:
    return model(
        """net (float[1,3,8,8] image) => (float[1,4,8,8] map) { map = Conv<kernel_shape=[1,1]>(image, w) }""",
        w=RNG.normal(size=(4, 3, 1, 1)).astype(np.float32),
    )


def test_every_form_of_a_model_gives_the_same_bytes(tmp_path: Path) -> None:
    proto = small_cnn()
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    expected = litert.compile(path)
    assert litert.compile(str(path)) == expected
    assert litert.compile(proto) == expected
    assert litert.compile(proto.SerializeToString()) == expected
    assert litert.compile(ir.serde.deserialize_model(proto)) == expected


def test_an_onnx_proto_is_left_alone() -> None:
    proto = small_cnn()
    before = proto.SerializeToString()
    litert.compile(proto)
    assert proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("layout", "held"),
    [("keep", (1, 3, 8, 8)), ("nchw", (1, 3, 8, 8)), ("nhwc", (1, 8, 8, 3))],
)
def test_inputs_are_held_as_asked(layout: str, held: tuple[int, ...]) -> None:
    proto = feature_maps()
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout=layout, output_layout=layout)
    feeds = {"image": RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)}
    assert compiled.inputs[0].shape == held
    assert relative_error(source_results(proto, feeds)["map"], artifact_results(compiled, feeds)["map"]) < 1e-6
    assert operators(compiled.data)["TRANSPOSE"] == (0 if layout == "nhwc" else 2)


def test_names_survive() -> None:
    interpreter = Interpreter(model_content=litert.compile(small_cnn()))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["digit"]}}
    names = {details["name"] for details in interpreter.get_tensor_details()}
    assert {"image", "b", "d", "digit"} <= names


def test_a_cnn_has_no_transposes_and_fused_activations() -> None:
    found = operators(litert.compile(small_cnn(), input_layout="nhwc"))
    assert found == {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "PAD": 1, "MEAN": 1, "FULLY_CONNECTED": 1}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_matrices_are_written_turned(precision: str) -> None:
    """FULLY_CONNECTED takes the matrix of a MatMul transposed; its sizes are no multiples of the strips that it is copied in."""
    proto = model(
        "net (float[3,37] x) => (float[3,21] y) { y = MatMul(x, w) }", w=RNG.integers(-8, 8, (37, 21)).astype(np.float32)
    )
    feeds = {"x": RNG.integers(-8, 8, (3, 37)).astype(np.float32)}
    compiled = litert.compile_hub(hub.prepare(ir.from_proto(proto)), precision=precision)
    assert set(operators(compiled.data)) >= {"FULLY_CONNECTED"}
    np.testing.assert_array_equal(artifact_results(compiled, feeds)["y"], source_results(proto, feeds)["y"])


def test_half_precision_halves_the_weights() -> None:
    proto = model(
        "net (float[1,256] x) => (float[1,256] y) { y = MatMul(x, w) }", w=RNG.normal(size=(256, 256)).astype(np.float32)
    )
    full, half = litert.compile(proto), litert.compile(proto, precision="fp16")
    assert len(half) < 0.52 * len(full)
    assert operators(half)["DEQUANTIZE"] == 1


def test_half_precision_keeps_what_it_cannot_hold() -> None:
    weights = RNG.normal(size=(16, 16)).astype(np.float32)
    weights[0, 0] = 1e6
    proto = model("net (float[1,16] x) => (float[1,16] y) { y = MatMul(x, w) }", w=weights)
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), precision="fp16")
    assert "its largest value is 1e+06" in compiled.notes[0]
    feeds = {"x": np.ones((1, 16), np.float32)}
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 1e-6


def test_a_dynamic_batch_can_be_resized() -> None:
    proto = small_cnn()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    interpreter = Interpreter(model_content=litert.compile(proto))
    details = interpreter.get_input_details()[0]
    assert list(details["shape_signature"]) == [-1, 3, 16, 16]
    x = RNG.normal(size=(5, 3, 16, 16)).astype(np.float32)
    interpreter.resize_tensor_input(details["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], x)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert relative_error(source_results(proto, {"image": x})["digit"], result) < 1e-5


def test_outputs_that_no_operator_makes_are_copied() -> None:
    proto = model(
        """net (float[2,3] x) => (float[2,3] same, float[2,3] again, float[2] fixed) {
            same = Identity(x) again = Identity(x) fixed = Identity(c)
        }""",
        c=np.array([1, 2], np.float32),
    )
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))
    feeds = {"x": RNG.normal(size=(2, 3)).astype(np.float32)}
    made = artifact_results(compiled, feeds)
    for name, array in source_results(proto, feeds).items():
        np.testing.assert_array_equal(made[name], array)


def test_a_weight_may_be_an_output_of_no_declared_shape() -> None:
    proto = model(
        """net (float[1,1,3,3] x) => (float[1,2,10,8] y, float[] w) {
            y = ConvTranspose<output_padding=[1,1], strides=[3,2]>(x, w)
        }""",
        w=RNG.normal(size=(1, 2, 3, 3)).astype(np.float32),
    )
    assert not proto.graph.output[1].type.tensor_type.HasField("shape")
    feeds = {"x": RNG.normal(size=(1, 1, 3, 3)).astype(np.float32)}
    made = artifact_results(litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto))), feeds)
    for name, array in source_results(proto, feeds).items():
        assert relative_error(array, made[name]) < 1e-6


def test_an_unknown_operator_is_named() -> None:
    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd", domain="com.example")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([node], "net", [x], [y])
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.example", 1)]
    )
    with pytest.raises(UnsupportedOperator) as error:
        litert.compile(proto)
    assert "com.example.NoSuchOperator" in str(error.value)
    assert "'odd'" in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("(float[3,4] x, int64[k] s) => (float[] y) { a = Reshape(x, s) b = Transpose(a) y = Relu(b) }", "operator Reshape"),
        ("(float[3,4] x, int64[k] s) => (float[] y) { a = Expand(x, s) y = Softmax(a) }", "operator Expand"),
        ("(float[] x) => (float[] y) { y = Relu(x) }", "graph 'net'"),
    ],
    ids=["reshape", "expand", "input"],
)
def test_an_unknown_rank_is_refused_with_the_value_that_has_it(text: str, where: str) -> None:
    with pytest.raises(CompileError, match=r"'a' has is not known|input 'x' has no shape") as error:
        litert.compile(model(f"net {text}"))
    assert where in str(error.value.where)
    assert "--input" in str(error.value.fix)


def test_a_refused_case_names_node_attribute_and_remedy() -> None:
    proto = model(
        """net (float[1,1,4,4] x) => (float[1,1,3,3] y) <float[4] s = {1, 1, 0.8, 0.8}> {
            y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , s)
        }"""
    )
    proto.graph.node[0].name = "halve"
    with pytest.raises(CompileError) as error:
        litert.compile(proto)
    assert "halve" in str(error.value)
    assert "scales" in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize("content", [b"", b"garbage that is no protobuf", bytes(range(256)) * 10])
def test_garbage_is_a_source_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(SourceError):
        litert.compile(path)
    with pytest.raises(SourceError):
        litert.compile(content)


def test_a_truncated_model_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_cnn().SerializeToString()[:-200])
    with pytest.raises(SourceError):
        litert.compile(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SourceError, match=r"nowhere\.onnx"):
        litert.compile("nowhere.onnx")


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="nhwc"):
        litert.compile(small_cnn(), input_layout="channels")
    with pytest.raises(InputError, match="int8"):
        litert.compile(small_cnn(), precision="int8")


def test_it_needs_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small_cnn(), path)
    heavy = "{'tensorflow', 'torch'}"
    code = f"import sys; from edgekit import litert; litert.compile({str(path)!r}); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
