"""Figures of one quantized artifact: its answers against the source's, what of it computes in INT8, and how long it takes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from quant_results import Measured
from quant_subjects import similarities
from quant_tools import Artifact, Work

ROUNDS = 8
SECONDS = 1.0
# Operators that compute nothing: they carry numbers as they are, or say where integers begin and end.
TFLITE_PLAIN = frozenset("QUANTIZE DEQUANTIZE CAST SHAPE RESHAPE SQUEEZE EXPAND_DIMS IF WHILE CALL_ONCE".split())
ONNX_PLAIN = frozenset("QuantizeLinear DequantizeLinear Cast Shape Reshape Squeeze Unsqueeze Flatten Identity Constant".split())
# What hands 8-bit integers on.
ONNX_MOVES = frozenset(
    "Concat DepthToSpace Expand Flatten Gather MaxPool NhwcMaxPool Pad Reshape Resize Slice SpaceToDepth Split Squeeze Tile"
    " Transpose Unsqueeze".split()
)


def results(artifact: Artifact, work: Work) -> np.ndarray:
    """The artifact's results on the test samples, one row for each."""
    runner = artifact.runner()
    return np.concatenate([runner.run(feed)[work.output] for feed in work.test.feeds])


def judged(row: Measured, found: np.ndarray, work: Work) -> Measured:
    """The row with how these results compare with the source's."""
    exact, ours = work.reference.astype(np.float64), found.astype(np.float64)
    noise = np.square(ours - exact).sum()
    row = replace(
        row,
        unchanged=float(work.subject.same(work.reference, found).mean()),
        sqnr=float(10 * np.log10(np.square(exact).sum() / max(noise, 1e-30))),
        error=float(np.sqrt(noise / ours.size)),
    )
    if work.subject.name == "minilm":
        from scipy.stats import spearmanr

        row = replace(row, rank=float(spearmanr(similarities(work.reference), similarities(found)).statistic))
    if work.labels is not None:
        right = [float((array.argmax(1) == work.labels).mean()) for array in (found, work.reference)]
        row = replace(row, accuracy=right[0], source_accuracy=right[1])
    return row


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference."""
    return float(np.sqrt(np.square(a.astype(np.float64) - b).mean()))


def shares(row: Measured, artifact: Artifact) -> Measured:
    """The row with how many operators compute in INT8."""
    kinds = _tflite_kinds(artifact.path) if artifact.format == "tflite" else _onnx_kinds(artifact.path)
    left = Counter(name for name, integer in kinds if not integer)
    return replace(
        row,
        operators=len(kinds),
        integer_operators=len(kinds) - left.total(),
        float_operators=", ".join(f"{count} {name}" for name, count in sorted(left.items())),
    )


def latencies(artifacts: Sequence[Artifact], work: Work) -> list[float]:
    """Median milliseconds of one inference: CPU time of the calling thread, which is the only one that computes.

    The artifacts take turns; each is loaded anew ROUNDS times, because where its memory happens to lie makes up to a tenth.
    """
    measured: list[list[float]] = [[] for _ in artifacts]
    feed = work.test.feeds[0]
    for round in range(ROUNDS):
        turns = [(artifact.runner().bound(feed), times) for artifact, times in zip(artifacts, measured, strict=True)]
        turns = turns[round % len(turns) :] + turns[: round % len(turns)]
        for call, _ in turns:
            call()
        end = time.monotonic() + SECONDS * len(turns) / ROUNDS
        while time.monotonic() < end or len(measured[0]) < 2 * (round + 1):
            for call, times in turns:
                start = time.thread_time_ns()
                call()
                times.append((time.thread_time_ns() - start) / 1e6)
    return [statistics.median(times) for times in measured]


def _tflite_kinds(path: Path) -> list[tuple[str, bool]]:
    """Of each operator that computes on numbers its name, and whether it does so on 8-bit integers.

    Weights of 8 bits beside float activations count: LiteRT quantizes the activations and multiplies integers.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    small = (schema.TensorType.INT8, schema.TensorType.UINT8)
    kinds = []
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            types = [graph.tensors[i].type for i in operator.inputs if i >= 0]
            computes = any(kind in (*small, schema.TensorType.FLOAT32, schema.TensorType.INT16) for kind in types)
            if computes and name not in TFLITE_PLAIN:
                kinds.append((name, any(kind in small for kind in types)))
    return kinds


def _onnx_kinds(path: Path) -> list[tuple[str, bool]]:
    """The same of what onnxruntime makes of an ONNX file when it loads it: QDQ pairs are integer operators only then."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch, "optimized.onnx"))
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    small = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    sizes = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    integer = {tensor.name for tensor in graph.initializer if tensor.data_type in small and list(tensor.dims)}
    kinds = []
    for node in graph.node:
        reads = any(name in integer for name in node.input)
        computes = any(constants.get(name) not in sizes for name in node.input if name)
        if computes and node.op_type not in ONNX_PLAIN:
            kinds.append((node.op_type, reads))
        if node.op_type == "QuantizeLinear" or (reads and _hands_on(node)):
            integer.update(node.output)
    return kinds


def _hands_on(node: Any) -> bool:
    """Whether the results of a node that reads 8-bit integers are such integers."""
    if node.op_type == "QGemm":
        return len(node.input) > 7 and bool(node.input[7])  # without a scale of its results it gives float32
    return node.op_type in ONNX_MOVES or node.op_type.startswith("QLinear")
