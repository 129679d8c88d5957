"""Families of operators over their attributes, ranks, dtypes and shapes: every drawn model gives what onnxruntime gives."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgekit import litert

from .running import WITHOUT_DELEGATES, source_results

EXAMPLES = int(os.environ.get("EDGEKIT_EXAMPLES", "12"))
few = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 50, suppress_health_check=list(HealthCheck), database=None
)
sizes = st.integers(1, 4)
FLOAT = "float32"


@few
@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "int8", "uint8"])
def test_broadcasting(dtype: str, data: st.DataObject) -> None:
    op = data.draw(st.sampled_from("Add Sub Mul Max Min Equal Less GreaterOrEqual".split()))
    full = data.draw(st.lists(sizes, min_size=1, max_size=6))
    left, right = ([1 if data.draw(st.booleans()) else d for d in full] for _ in range(2))
    right = right[data.draw(st.integers(0, len(right))) :]
    check(op, {"a": array(left, dtype), "b": array(right, dtype)})


@few
@given(data=st.data())
def test_reductions(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from("Sum Mean Max Min Prod L1 L2 LogSumExp SumSquare".split()))
    shape = data.draw(st.lists(sizes, min_size=1, max_size=5))
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape), max_size=len(shape)))
    keep = data.draw(st.booleans())
    check(f"Reduce{op}", {"x": array(shape)}, {"axes": np.array(axes, np.int64)}, keepdims=int(keep))


@few
@given(data=st.data())
def test_arg_and_topk(data: st.DataObject) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    dtype = data.draw(st.sampled_from(["float32", "int32"]))
    x = array(shape, dtype) if data.draw(st.booleans()) else np.sign(array(shape)).astype(dtype)
    if data.draw(st.booleans()):
        op = data.draw(st.sampled_from(["ArgMax", "ArgMin"]))
        options = {"keepdims": int(data.draw(st.booleans())), "select_last_index": int(data.draw(st.booleans()))}
        check(op, {"x": x}, axis=axis, **options)
    else:
        x = np.random.default_rng(0).permutation(x.size).reshape(shape).astype(dtype)
        k = data.draw(st.integers(1, shape[axis]))
        largest = int(data.draw(st.booleans()))
        check("TopK", {"x": x}, {"k": np.array([k])}, outputs=2, axis=axis, largest=largest, sorted=1)


@few
@given(data=st.data())
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pooling(op: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    options = window(data, n)
    options["ceil_mode"] = int(data.draw(st.booleans()))
    # onnxruntime's LpPool crops where SAME would take padding away.
    assume(op != "LpPool" or not options.get("auto_pad", "").startswith("SAME"))
    if op == "AveragePool":
        options["count_include_pad"] = int(data.draw(st.booleans()))
    x = array([data.draw(st.integers(1, 2)), data.draw(sizes), *(data.draw(st.integers(5, 9)) for _ in range(n))])
    check(op, {"x": x}, **options)


@few
@given(data=st.data())
def test_convolutions(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 2))
    group, per_group, multiple = data.draw(sizes), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    options = window(data, n)
    x = array([data.draw(st.integers(1, 2)), group * per_group, *(data.draw(st.integers(5, 9)) for _ in range(n))])
    w = array([group * multiple, per_group, *options["kernel_shape"]])
    constants = {"w": w, "b": array([group * multiple])} if data.draw(st.booleans()) else {"w": w}
    check("Conv", {"x": x}, constants, group=group, **options)


@few
@given(data=st.data())
def test_transposed_convolutions(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 2))
    group, per_group, inputs = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    options = window(data, n)
    if "auto_pad" not in options:
        options["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in options["strides"]]
    x = array([1, group * inputs, *(data.draw(st.integers(3, 6)) for _ in range(n))])
    w = array([group * inputs, per_group, *options["kernel_shape"]])
    check("ConvTranspose", {"x": x}, {"w": w}, group=group, **options)


@few
@given(data=st.data())
def test_resize(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 7)), data.draw(st.integers(2, 7))
    target = [data.draw(st.integers(1, 14)) for _ in range(2)]
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    names = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": data.draw(st.sampled_from(names))}
    if mode == "nearest":
        options["nearest_mode"] = data.draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    elif data.draw(st.booleans()):
        options["antialias"] = 1
    x = array([1, 2, height, width])
    check("Resize", {"x": x}, {"": None, "scales": None, "sizes": np.array([1, 2, *target])}, **options)


@few
@given(data=st.data())
def test_slices(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape), min_size=1))
    far = st.one_of(st.integers(-8, 8), st.sampled_from([2**31 - 1, 2**63 - 1, -(2**63)]))
    bounds = {name: np.array([data.draw(far) for _ in axes], np.int64) for name in ("starts", "ends")}
    steps = np.array([data.draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes], np.int64)
    # Backwards from before the start, or to beyond the end, is nothing in numpy and something in onnxruntime.
    lengths = np.array([shape[a] for a in axes])
    assume(not ((steps < 0) & ((bounds["ends"] > 8) | (bounds["starts"] < -lengths))).any())
    check("Slice", {"x": array(shape)}, {**bounds, "axes": np.array(axes, np.int64), "steps": steps})


@few
@given(data=st.data())
def test_padding(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(3, 5), min_size=1, max_size=4))
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    amount = st.integers(-1, 4) if mode == "constant" else st.integers(0, 2)
    pads = np.array([data.draw(amount) for _ in range(2 * len(shape))], np.int64)
    constants: dict[str, np.ndarray | None] = {"pads": pads}
    if mode == "constant" and data.draw(st.booleans()):
        constants["value"] = np.float32(1.5)
    check("Pad", {"x": array(shape)}, constants, mode=mode)


@few
@given(data=st.data())
def test_gathering(data: st.DataObject) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    outer = data.draw(st.lists(sizes, max_size=2)) if data.draw(st.booleans()) else shape
    op = "Gather" if outer is not shape else "GatherElements"
    index = np.random.default_rng(0).integers(-size, size, outer)
    x = array(shape, data.draw(st.sampled_from(["float32", "int64", "bool", "uint8"])))
    if data.draw(st.booleans()):
        check(op, {"x": x, "i": index}, axis=axis)
    else:
        check(op, {"x": x}, {"i": index}, axis=axis)


@few
@given(data=st.data())
def test_scattering(data: st.DataObject) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    reduction = data.draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    count = data.draw(st.integers(1, shape[axis])) if reduction == "none" else data.draw(sizes)
    outer = list(shape)
    outer[axis] = count
    generator = np.random.default_rng(0)
    index = generator.integers(-shape[axis], shape[axis], outer)
    if reduction == "none":  # ONNX leaves open which of two updates of one place stays
        index = np.moveaxis(
            np.apply_along_axis(lambda _: generator.permutation(shape[axis])[:count], axis, np.zeros(shape)), 0, 0
        )
        index = index.astype(np.int64)
    feeds, constants = {"x": array(shape)}, {"i": index, "u": array(outer)}
    if data.draw(st.booleans()):
        check("ScatterElements", feeds | constants, axis=axis, reduction=reduction)
    else:
        check("ScatterElements", feeds, constants, axis=axis, reduction=reduction)


@few
@given(data=st.data())
def test_products(data: st.DataObject) -> None:
    rows, inner, columns = (data.draw(sizes) for _ in range(3))
    outer = data.draw(st.lists(sizes, max_size=3))
    left = [1 if data.draw(st.booleans()) else d for d in outer] + [rows, inner]
    right = ([1 if data.draw(st.booleans()) else d for d in outer] + [inner, columns])[data.draw(st.integers(0, len(outer))) :]
    if data.draw(st.integers(0, 4)) == 0:
        left, right = [inner], right
    elif data.draw(st.integers(0, 4)) == 0:
        right = [inner]
    if data.draw(st.booleans()):
        check("MatMul", {"a": array(left)}, {"b": array(right)})
    else:
        check("MatMul", {"a": array(left), "b": array(right)})


@few
@given(data=st.data())
def test_gemm(data: st.DataObject) -> None:
    m, k, n = (data.draw(sizes) for _ in range(3))
    trans_a, trans_b = data.draw(st.booleans()), data.draw(st.booleans())
    a, b = array([k, m] if trans_a else [m, k]), array([n, k] if trans_b else [k, n])
    c = array(data.draw(st.sampled_from([[n], [1, n], [m, n], [m, 1], [1], []])))
    options = {"transA": int(trans_a), "transB": int(trans_b), "alpha": data.draw(st.sampled_from([1.0, 0.5]))}
    options["beta"] = data.draw(st.sampled_from([1.0, 0.25]))
    if data.draw(st.booleans()):
        check("Gemm", {"a": a}, {"b": b, "c": c}, **options)
    else:
        check("Gemm", {"a": a, "b": b, "c": c}, **options)


@few
@given(data=st.data())
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "LpNormalization", "Hardmax"])
def test_along_an_axis(op: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=5))
    check(op, {"x": array(shape)}, axis=data.draw(st.integers(-len(shape), len(shape) - 1)))


@few
@given(data=st.data())
def test_shapes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=6))
    x = array(shape, data.draw(st.sampled_from(["float32", "int8", "bool", "uint16", "int64"])))
    op = data.draw(st.sampled_from(["Transpose", "Tile", "Expand", "Concat", "Split"]))
    if op == "Transpose":
        check(op, {"x": x}, perm=data.draw(st.permutations(range(len(shape)))))
    elif op == "Tile":
        check(op, {"x": x}, {"r": np.array([data.draw(st.integers(1, 2)) for _ in shape])})
    elif op == "Expand":
        lead = data.draw(st.lists(sizes, max_size=2)) if len(shape) < 5 else []
        check(op, {"x": x[tuple(slice(0, 1) for _ in shape[:1])]}, {"s": np.array(lead + shape)})
    elif op == "Concat":
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        check(op, {"x": x, "z": x[::-1].copy()}, {"c": x}, axis=axis)
    else:
        axis = data.draw(st.integers(0, len(shape) - 1))
        check(op, {"x": np.concatenate([x, x], axis)}, outputs=2, axis=axis, num_outputs=2)


def window(data: st.DataObject, n: int) -> dict[str, Any]:
    """Kernel, strides, dilations and paddings that onnxruntime accepts."""
    kernel = [data.draw(st.integers(1, 3)) for _ in range(n)]
    options: dict[str, Any] = {"kernel_shape": kernel, "strides": [data.draw(st.integers(1, 3)) for _ in range(n)]}
    kind = data.draw(st.sampled_from(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if kind == "pads":
        options["pads"] = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    elif kind != "none":
        options["auto_pad"] = kind
    if kind in ("none", "pads") and data.draw(st.booleans()):
        options["dilations"] = [data.draw(st.integers(1, 2)) for _ in range(n)]
    return options


def array(shape: list[int], dtype: str = FLOAT) -> np.ndarray:
    generator = np.random.default_rng(sum(shape) + 17 * len(shape))
    if dtype == FLOAT:
        return generator.normal(size=shape).astype(FLOAT)
    return generator.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def check(
    op: str,
    feeds: dict[str, np.ndarray],
    constants: dict[str, np.ndarray | None] | None = None,
    *,
    outputs: int = 1,
    **attributes: Any,
) -> None:
    """Compile a model of one node, run it both ways, and compare."""
    source = one_node(op, feeds, constants or {}, outputs, attributes)
    try:
        expected = source_results(source, feeds)
    except Exception as error:  # what onnxruntime does not take is not a model
        assume(False)
        raise AssertionError from error
    assume(all(a.size for a in expected.values()))
    data = litert.compile(source)
    for kernels in ({}, {"experimental_op_resolver_type": WITHOUT_DELEGATES}):
        results = Interpreter(model_content=data, **kernels).get_signature_runner()(**feeds)
        for name, want in expected.items():
            assert results[name].shape == want.shape
            assert results[name].dtype == want.dtype
            scale = max(1.0, float(np.abs(want.astype(np.float64)).max(initial=0)))
            np.testing.assert_allclose(results[name].astype("f8"), want.astype("f8"), rtol=1e-4, atol=1e-5 * scale)


def one_node(
    op: str, feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray | None], outputs: int, attributes: dict[str, Any]
) -> onnx.ModelProto:
    """Feeds are the first inputs, then the constants (None for one that is left out)."""
    names = [*feeds, *(name if array is not None else "" for name, array in constants.items())]
    made = [f"y{i}" for i in range(outputs)]
    node = oh.make_node(op, names, made, name="node", **attributes)
    inputs = [oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()]
    held = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items() if a is not None]
    results = [onnx.ValueInfoProto(name=n) for n in made]
    graph = oh.make_graph([node], "net", inputs, results, held)
    source = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(source, data_prop=True)
