"""What can be read off a .tflite file, whoever wrote it: operators as written, transposes, and latency on one thread."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def operators(path: Path) -> Counter[str]:
    """Operators over all subgraphs by their schema name, before any delegate: {"CONV_2D": 53, ...}."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return Counter(codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators or [])


def latencies(paths: Sequence[Path], seconds: float = 3.0, least: int = 20) -> list[float]:
    """Median milliseconds of one inference of each file: CPU time of the calling thread, which is the only one that computes.

    The files take turns, so that whatever else the machine does meets all of them alike.
    """
    interpreters = [_interpreter(path) for path in paths]
    for interpreter in interpreters:
        for detail in interpreter.get_input_details():
            dtype = "int64" if np.issubdtype(detail["dtype"], np.integer) else "float32"
            interpreter.set_tensor(detail["index"], _random(dtype, detail["shape"]).astype(detail["dtype"]))
        interpreter.invoke()
    measured: list[list[float]] = [[] for _ in paths]
    end = time.monotonic() + seconds * len(paths)
    while time.monotonic() < end or len(measured[0]) < least:
        for interpreter, times in zip(interpreters, measured, strict=True):
            start = time.thread_time_ns()
            interpreter.invoke()
            times.append((time.thread_time_ns() - start) / 1e6)
    return [statistics.median(times) for times in measured]


def relative_error(path: Path, onnx: Path) -> float:
    """max |a - b| / max |a| over the outputs, a being onnxruntime's result of the same seeded random input.

    Tensors are matched by name where the names agree and by position otherwise; one whose axes are in another order is the
    channel-last version of the ONNX tensor.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    interpreter = _interpreter(path)
    feeds = {spec.name: _random(spec.type, spec.shape) for spec in session.get_inputs()}
    details = interpreter.get_input_details()
    for detail, (_, array) in zip(details, _ordered(feeds, details).items(), strict=True):
        interpreter.set_tensor(detail["index"], _like(array, detail["shape"]).astype(detail["dtype"]))
    interpreter.invoke()
    wanted = session.run(None, feeds)
    got = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    assert len(wanted) == len(got) == 1, "benchmark networks have one output"
    reference = np.asarray(wanted[0])
    return float(np.abs(reference - got[0].reshape(reference.shape)).max() / np.abs(reference).max())


def _interpreter(path: Path):  # type: ignore[no-untyped-def]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _random(dtype: str, shape: Sequence[int]) -> np.ndarray:
    random = np.random.default_rng(7)
    if "int" in dtype:
        # Token ids, masks and types of a language model: valid in all three places.
        return np.ones(shape, np.int64)
    return random.standard_normal(shape, np.float32)


def _ordered(feeds: Mapping[str, np.ndarray], details: Sequence[Mapping[str, object]]) -> dict[str, np.ndarray]:
    names = [next((name for name in feeds if name in str(detail["name"])), None) for detail in details]
    if len(set(names)) == len(feeds) and None not in names:
        return {name: feeds[name] for name in names if name is not None}
    return dict(feeds)


def _like(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if tuple(array.shape) == tuple(shape):
        return array
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))
