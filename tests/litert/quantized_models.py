"""Small networks, quantized by onnxruntime's own quantizer, and what can be said of a compiled one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgekit import hub, litert
from edgekit.litert import Compiled

from .running import WITHOUT_DELEGATES, model

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) * 0.3).astype(np.float32)


NETWORKS = {
    "residual": model(
        """net (float[1,3,16,16] x) => (float[1,10] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            b = Relu(a)
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group=8>(b, w2, b1)
            d = Clip(c, zero, six)
            e = Conv<kernel_shape=[1,1]>(d, w3, b1)
            f = Add(e, d)
            g = Relu(f)
            h = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(g)
            i = AveragePool<kernel_shape=[2,2], strides=[1,1]>(h)
            j = MaxPool<kernel_shape=[2,2], strides=[1,1]>(h)
            k = Concat<axis=1>(j, i)
            l = GlobalAveragePool(k)
            m = Flatten(l)
            n = Gemm<transB=1>(m, w4, b4)
            y = Softmax(n)
        }""",
        w1=_normal(8, 3, 3, 3),
        b1=_normal(8),
        w2=_normal(8, 1, 3, 3),
        w3=_normal(8, 8, 1, 1),
        w4=_normal(10, 16),
        b4=_normal(10),
        zero=np.float32(0),
        six=np.float32(6),
    ),
    "gated": model(
        """net (float[1,4,12,12] x) => (float[1,4,24,24] y, float[1,4,24,24] z) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            s = Sigmoid(a)
            m = Mul(a, s)
            l = LeakyRelu<alpha=0.1>(m)
            y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(l, , scales)
            z = Resize<mode="linear">(l, , scales)
        }""",
        w1=_normal(4, 4, 3, 3),
        b1=_normal(4),
        scales=np.array([1, 1, 2, 2], np.float32),
    ),
    "dense": model(
        """net (float[1,3,8,8] x) => (float[1,10] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
            b = Relu(a)
            c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
            d = Flatten(c)
            e = Gemm<transB=1>(d, w2, b2)
            f = Relu(e)
            g = MatMul(f, w3)
            y = Add(g, b3)
        }""",
        w1=_normal(8, 3, 3, 3),
        b1=_normal(8),
        w2=_normal(20, 128),
        b2=_normal(20),
        w3=_normal(20, 10),
        b3=_normal(10),
    ),
    "attention": model(
        """net (float[1,6,16] x) => (float[1,6,16] y) {
            q0 = MatMul(x, wq)
            q1 = Add(q0, b)
            q2 = Reshape(q1, heads)
            q = Transpose<perm=[0,2,1,3]>(q2)
            k0 = MatMul(x, wk)
            k1 = Add(k0, b)
            k2 = Reshape(k1, heads)
            k = Transpose<perm=[0,2,3,1]>(k2)
            v0 = MatMul(x, wv)
            v1 = Add(v0, b)
            v2 = Reshape(v1, heads)
            v = Transpose<perm=[0,2,1,3]>(v2)
            s0 = MatMul(q, k)
            s1 = Mul(s0, half)
            s = Softmax<axis=-1>(s1)
            o0 = MatMul(s, v)
            o1 = Transpose<perm=[0,2,1,3]>(o0)
            o2 = Reshape(o1, rows)
            o3 = MatMul(o2, wo)
            y = Add(o3, x)
        }""",
        wq=_normal(16, 16),
        wk=_normal(16, 16),
        wv=_normal(16, 16),
        wo=_normal(16, 16),
        b=_normal(16),
        half=np.float32(0.5),
        heads=np.array([1, 6, 2, 8]),
        rows=np.array([1, 6, 16]),
    ),
    "moves": model(
        """net (float[1,4,8,8] x) => (float[1,4,16,8] y) {
            a = Conv<kernel_shape=[5,5], pads=[2,2,2,2], group=2>(x, w1, b1)
            b = Relu(a)
            c = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(b, w2, b2)
            p = Pad(c, pads, zero)
            s, t = Split<axis=1, num_outputs=2>(p)
            m = Max(s, t)
            e = Sub(s, t)
            g = Concat<axis=1>(m, e)
            i = Slice(g, starts, ends, axes)
            j = Reshape(i, shape)
            y = Transpose<perm=[0,1,3,2]>(j)
        }""",
        w1=_normal(8, 2, 5, 5),
        b1=_normal(8),
        w2=_normal(8, 2, 2, 2),
        b2=_normal(2),
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        zero=np.float32(0),
        starts=np.array([1, 1]),
        ends=np.array([17, 17]),
        axes=np.array([2, 3]),
        shape=np.array([1, 4, 8, 16]),
    ),
    "one_dimension": model(
        """net (float[1,4,32] x) => (float[1,6] y) {
            a = Conv<kernel_shape=[3], pads=[1,1]>(x, w1, b1)
            b = Relu(a)
            c = Conv<kernel_shape=[3], strides=[2], pads=[1,1], group=8>(b, w2, b1)
            d = Conv<kernel_shape=[1]>(c, w3)
            f = Flatten(d)
            y = Gemm(f, w4)
        }""",
        w1=_normal(8, 4, 3),
        b1=_normal(8),
        w2=_normal(8, 1, 3),
        w3=_normal(6, 8, 1),
        w4=_normal(96, 6),
    ),
}


def input_of(source: onnx.ModelProto) -> tuple[str, list[int]]:
    """Name and shape of a model's first input."""
    value = source.graph.input[0]
    return value.name, [d.dim_value for d in value.type.tensor_type.shape.dim]


def random_feeds(source: onnx.ModelProto, count: int) -> list[Arrays]:
    name, shape = input_of(source)
    generator = np.random.default_rng(1)
    return [{name: generator.normal(size=shape).astype(np.float32)} for _ in range(count)]


def quantized(
    source: onnx.ModelProto,
    feeds: Sequence[Arrays],
    folder: Path,
    form: str,
    activations: str,
    per_channel: bool = True,
    *,
    left_out: Sequence[int] = (),
    extra_options: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """The model as onnxruntime quantizes it, with int8 weights.

    Args:
        form: QDQ or QOperator.
        activations: QInt8 or QUInt8.
        left_out: Places of the nodes that stay in float.
        extra_options: Further options of its quantizer.
    """

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Arrays] = iter(feeds)

        def get_next(self) -> Arrays | None:
            return next(self._feeds, None)

    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    for i, node in enumerate(copy.graph.node):
        node.name = f"{node.op_type}_{i}"
    path = folder / "quantized.onnx"
    quantize_static(
        copy,
        path,
        Reader(),
        quant_format=QuantFormat[form],
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        nodes_to_exclude=[copy.graph.node[i].name for i in left_out],
        extra_options=extra_options or {},
    )
    return onnx.load(path)


def compiled(source: onnx.ModelProto, **options: Any) -> Compiled:
    return litert.compile_hub(hub.prepare(ir.serde.deserialize_model(source)), **options)


def onnxruntime_results(source: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """What onnxruntime computes with its own integer kernels."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def output_step(source: onnx.ModelProto, name: str) -> float:
    """The scale that an output was quantized with last."""
    makers = {out: node for node in source.graph.node for out in node.output}
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    node = makers[name]
    while node.op_type not in ("DequantizeLinear", "QuantizeLinear"):
        node = makers[node.input[0]]
    return float(scales[node.input[1]].item())


def computing(data: bytes) -> Counter[tuple[str, str]]:
    """The operators as written, each with the dtype that it computes in; QUANTIZE, DEQUANTIZE and RESHAPE left out."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=WITHOUT_DELEGATES)
    dtypes = {tensor["index"]: tensor["dtype"].__name__ for tensor in interpreter.get_tensor_details()}
    found: Counter[tuple[str, str]] = Counter()
    for op in interpreter._get_ops_details():
        if op["op_name"] not in ("QUANTIZE", "DEQUANTIZE", "RESHAPE"):
            found[op["op_name"], dtypes[op["outputs"][0]]] += 1
    return found


def delegates(data: bytes) -> int:
    """How many parts of the network XNNPACK takes; 1 is all of it, or all but an end."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
