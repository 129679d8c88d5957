"""Small graphs in ONNX's text syntax, prepared, and compared with themselves before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from edgekit.hub import prepare
from edgekit.hub.check import check

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def text_model(body: str, opset: int = 20) -> onnx.ModelProto:
    """A model from the text of its graph: `g (float[1,4] x) => (y) { y = Relu(x) }`."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{body}')


def hub(model: str | onnx.ModelProto, shapes: Mapping[str, tuple[int | str, ...]] | None = None, opset: int = 20) -> ir.Model:
    """The model prepared, and checked to be in the dialect."""
    proto = text_model(model, opset) if isinstance(model, str) else model
    prepared = prepare(ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString())), shapes=shapes or {})
    check(prepared)
    return prepared


def same(
    model: str | onnx.ModelProto,
    opset: int = 20,
    feeds: Mapping[str, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
) -> ir.Model:
    """Prepare a model and require the same results from onnxruntime, up to `tolerance` of the largest value.

    Args:
        model: The model, or the text of its graph.
        opset: Of the text.
        feeds: Inputs; without them, numbers from -2 to 2 (integers: 0 and 1), symbolic dimensions being 3.
        tolerance: Relative to the largest magnitude of an output.
        shapes: For `prepare`.
    """
    before = text_model(model, opset) if isinstance(model, str) else model
    after = hub(before, shapes)
    reference, session = _session(before), _session(ir.to_proto(after))
    given = dict(feeds) if feeds is not None else random_feeds(session)
    wanted = reference.run(None, {i.name: given[i.name] for i in reference.get_inputs()})
    found = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
    for output, a, b in zip(reference.get_outputs(), wanted, found, strict=True):
        assert a.shape == b.shape, output.name
        assert a.dtype == b.dtype, output.name
        scale = max(float(np.abs(a.astype(np.float64)).max(initial=0)), 1e-30)
        assert np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=0, atol=tolerance * scale, equal_nan=True), (
            output.name
        )
    return after


def operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs."""
    return dict(Counter(node.op_type for node in model.graph))


def random_feeds(session: onnxruntime.InferenceSession, size: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in session.get_inputs():
        shape = [dim if isinstance(dim, int) else size for dim in value.shape]
        dtype = _NUMPY[value.type]
        whole = np.dtype(dtype).kind == "i"
        feeds[value.name] = np.asarray(rng.integers(0, 2, shape) if whole else rng.uniform(-2, 2, shape)).astype(dtype)
    return feeds


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
