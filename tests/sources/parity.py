"""How far the ONNX graph of a source is from the source itself."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime

from edgekit.contract import Feeds
from edgekit.sources import Source


def feeds_of(source: Source, size: int = 3) -> dict[str, np.ndarray]:
    """Seeded noise (for integers, zeros and ones) of the inputs' shapes; dynamic dimensions get `size`."""
    noise = np.random.default_rng(0)
    shapes = {spec.name: [size if isinstance(d, str) else d for d in spec.shape] for spec in source.inputs}
    return {
        spec.name: noise.standard_normal(shapes[spec.name]).astype(spec.dtype)
        if np.dtype(spec.dtype).kind == "f"
        else noise.integers(0, 2, shapes[spec.name]).astype(spec.dtype)
        for spec in source.inputs
    }


def run_onnx(model: onnx_ir.Model, feeds: Feeds, *, optimized: bool = False) -> dict[str, np.ndarray]:
    """The graph's outputs on onnxruntime, with its graph optimizations or without."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    model = onnx_ir.external_data.load_to_model(model)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def worst_error(source: Source, feeds: Feeds | None = None, *, optimized: bool = False) -> float:
    """The largest `max |a - b| / max |a|` over the outputs, a being the source.

    Also checks that names, shapes and dtypes are those that the source promises.
    """
    feeds = feeds or feeds_of(source)
    expected, got = source.run(feeds), run_onnx(source.to_onnx(), feeds, optimized=optimized)
    assert list(got) == list(expected) == [spec.name for spec in source.outputs]
    for spec in source.outputs:
        spec.check(expected[spec.name])
        spec.check(got[spec.name])
    return max(float(np.abs(expected[n] - got[n]).max() / max(np.abs(expected[n]).max(), 1e-30)) for n in expected)


def operators(source: Source) -> set[str]:
    """The operators of the ONNX graph."""
    return {node.op_type for node in source.to_onnx().graph}
