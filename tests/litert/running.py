"""Runs a compiled model beside onnxruntime on the same inputs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit.litert import Compiled

WITHOUT_DELEGATES = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def model(text: str, opset: int = 20, **constants: np.ndarray) -> onnx.ModelProto:
    """An ONNX model from its textual graph; `constants` become initializers."""
    made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]>\n{text}')
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return made


def source_results(source: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime computes without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def artifact_results(compiled: Compiled, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the interpreter computes, in the source's names and order of axes."""
    runner = Interpreter(model_content=compiled.data, num_threads=1).get_signature_runner()
    made = runner(**{b.artifact: b.to_artifact(feeds[b.source]) for b in compiled.inputs})
    return {b.source: b.to_source(made[b.artifact]) for b in compiled.outputs}


def operators(data: bytes) -> Counter[str]:
    """Builtin operators as written, before any delegate."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=WITHOUT_DELEGATES)
    return Counter(op["op_name"] for op in interpreter._get_ops_details())


def relative_error(source: np.ndarray, artifact: np.ndarray) -> float:
    """max |a - b| / max |a|, a being the source's."""
    assert source.shape == artifact.shape
    scale = np.abs(source).max(initial=0.0) or 1.0
    return float(np.abs(source.astype(np.float64) - artifact.astype(np.float64)).max(initial=0.0) / scale)
