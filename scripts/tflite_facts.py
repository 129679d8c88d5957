"""What can be read off a .tflite file, whoever wrote it: operators as written, transposes, results, and latency on one thread."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
ROUNDS = 6


def operators(path: Path) -> Counter[str]:
    """Operators over all subgraphs by their schema name, before any delegate: {"CONV_2D": 53, ...}."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return Counter(codes[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators or [])


def latencies(paths: Sequence[Path], seconds: float = 3.0, least: int = 20, feeds: Arrays | None = None) -> list[float]:
    """Median milliseconds of one inference of each file: CPU time of the calling thread, which is the only one that computes.

    The files take turns, so that whatever else the machine does meets all of them alike. Where an interpreter's memory happens to
    lie makes up to a tenth: each file is loaded anew ROUNDS times, in another order each time.

    Args:
        seconds: For each file, unless `least` inferences take longer.
        feeds: The network's inputs; seeded random numbers otherwise.
    """
    measured: list[list[float]] = [[] for _ in paths]
    for round in range(ROUNDS):
        places = [(place + round) % len(paths) for place in range(len(paths))]
        turns = [(_ready(paths[place], feeds), measured[place]) for place in places]
        end = time.monotonic() + seconds * len(paths) / ROUNDS
        while time.monotonic() < end or len(measured[0]) * ROUNDS < least * (round + 1):
            for interpreter, times in turns:
                start = time.thread_time_ns()
                interpreter.invoke()
                times.append((time.thread_time_ns() - start) / 1e6)
            turns.append(turns.pop(0))  # none always comes after the same one
    return [statistics.median(times) for times in measured]


def relative_error(path: Path, onnx: Path) -> float:
    """`error` against onnxruntime on seeded random inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    kinds = {spec.name: np.int64 if "int" in spec.type else np.float32 for spec in session.get_inputs()}
    feeds = {spec.name: _random(kinds[spec.name], spec.shape) for spec in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return error(path, feeds, dict(zip(names, session.run(names, feeds), strict=True)))


def error(path: Path, feeds: Arrays, wanted: Arrays) -> float:
    """max |a - b| / max |a| of the worst output, a being the wanted one; infinite where an output is missing or not finite.

    Tensors are matched by name where the names agree and by place otherwise (litert-torch numbers them). One whose axes are in
    another order is the channel-last version of the ONNX tensor; where both orders have the same shape, either may be meant.
    """
    interpreter = _interpreter(path)
    shapes = [tuple(detail["shape"]) for detail in interpreter.get_input_details()]
    either = any(len(shape) > 2 and len(set(shape[1:])) == 1 for shape in shapes)
    return min(_error(interpreter, feeds, wanted, moved) for moved in ((False, True) if either else (False,)))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max |a|; infinite where a shape or a number is not one."""
    if a.shape != b.shape or not np.isfinite(b.astype(np.float64)).all():
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / (np.abs(a).max() or 1.0))


def _error(interpreter: Any, feeds: Arrays, wanted: Arrays, moved: bool) -> float:
    _feed(interpreter, feeds, moved)
    interpreter.invoke()
    details = interpreter.get_output_details()
    matched = _matched(wanted, [detail["name"] for detail in details])
    got = {name: interpreter.get_tensor(detail["index"]) for name, detail in zip(matched, details, strict=True) if name}
    return max(
        min((relative(array, view) for view in _views(got[name], array.shape)), default=float("inf"))
        if name in got
        else float("inf")
        for name, array in wanted.items()
    )


def _feed(interpreter: Any, feeds: Arrays, moved: bool) -> None:
    """Set the inputs; `moved` takes channels-last where either order of axes fits."""
    details = interpreter.get_input_details()
    for name, detail in zip(_matched(feeds, [detail["name"] for detail in details]), details, strict=True):
        if name is None:
            raise ValueError(f"the file has an input {detail['name']} that the network has not")
        shape, array = tuple(detail["shape"]), feeds[name]
        views = _views(array, shape, last=True)
        if not views:
            raise ValueError(f"{name} is {shape} in the file and {array.shape} in the network")
        interpreter.set_tensor(detail["index"], views[-1 if moved else 0].astype(detail["dtype"], order="C"))


def _matched(arrays: Arrays, names: Sequence[str]) -> list[str | None]:
    """For each tensor name of a file the array that it is, each at most once."""
    plain = [re.sub(r"^serving_default_|^StatefulPartitionedCall:?|:0$", "", name) for name in names]
    if set(plain) & set(arrays) or not arrays:
        rest = [name for name in arrays if name not in plain]
        return [name if name in arrays else (rest.pop(0) if rest else None) for name in plain]
    numbers = [re.search(r"(?:args_|output_|StatefulPartitionedCall:)(\d+)", name) for name in names]
    places = [int(n[1]) for n in numbers if n] if all(numbers) else []
    if len(set(places)) != len(names):
        places = list(range(len(names)))
    keys = list(arrays)
    return [keys[place] if place < len(keys) else None for place in places]


def _views(array: np.ndarray, shape: Sequence[int], last: bool = False) -> list[np.ndarray]:
    """The array in the orders of axes that have this shape: as it is, and with its channels moved to the end (or, from there,
    to the second place). Axes of size 1 may be missing or more."""
    candidates = [array]
    if array.ndim > 2:
        candidates.append(np.moveaxis(array, 1, -1) if last else np.moveaxis(array, -1, 1))
    found = [view for view in candidates if view.shape == tuple(shape)]
    if not found and [d for d in array.shape if d != 1] == [d for d in shape if d != 1]:
        found = [array.reshape(shape)]
    return found


def _ready(path: Path, feeds: Arrays | None) -> Any:
    """An interpreter with its inputs set, after its first inference."""
    interpreter = _interpreter(path)
    details = interpreter.get_input_details()
    _feed(interpreter, feeds or {d["name"]: _random(d["dtype"], d["shape"]) for d in details}, moved=False)
    interpreter.invoke()
    return interpreter


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _random(dtype: Any, shape: Sequence[int]) -> np.ndarray:
    if np.issubdtype(dtype, np.integer):
        # Token ids, masks and types of a language model: valid in all three places.
        return np.ones(shape, dtype)
    return np.random.default_rng(7).standard_normal(shape, np.float32)
