"""Damaged and mutated ONNX files through the compiler: either an error that edgekit means, or a right result.

    .venv/bin/python scripts/fuzz_compile.py                       # 5,000 cases from the node tests and small networks
    .venv/bin/python scripts/fuzz_compile.py --cases 300 --small   # from small networks only: what CI runs
    .venv/bin/python scripts/fuzz_compile.py --only 1234 --show    # one case again, with its traceback and its model

A case is a number: it seeds the choice of a model and of what is changed in it (fuzz_mutations.py). The file is compiled; when
that succeeds it is loaded and run, and where onnxruntime takes the same file the results are compared. Each case has a limit of
time and memory, in a worker process; after it nothing but its own file may be left. The exit code is 1 when a case is not right.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # whose session file, written on import, would count as left behind
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from fuzz_mutations import mutate, node_test_seeds, small_seeds

TIME_LIMIT = 20.0  # seconds a case may take
MEMORY_LIMIT = 2 << 30  # bytes of address space that a case may add
RIGHT = ("refused", "agrees", "unchecked", "guarded")
WRONG = ("fault", "memory", "wrong", "unloadable", "crash", "timeout", "left")
"""refused: an error of edgekit; guarded: one too, but only by its last resort, which a check should come before; agrees:
compiled, and the results are onnxruntime's; unchecked: compiled and run, nothing to compare with (onnxruntime refuses the model,
or its results are random or not finite); fault: any other exception; memory: an allocation above the limit; unloadable: the
runtime refuses the file; left: a file was left behind."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `reason` is the error, or where the fault is."""

    case: int
    kind: str
    reason: str = ""
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--only", type=int, help="one case, in this process")
    parser.add_argument("--show", action="store_true", help="with --only: the traceback and the model; else every refusal")
    parser.add_argument("--small", action="store_true", help="mutate small networks only")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds = [model.SerializeToString() for model in [*small_seeds(), *([] if options.small else node_test_seeds())]]
    if options.only is not None:
        return _show(seeds, options.only, options.show)
    start = time.monotonic()
    outcomes = list(run(seeds, range(options.first, options.first + options.cases), options.workers))
    print(report(outcomes, options.show))
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(f"{len(outcomes)} cases in {time.monotonic() - start:.0f} s; the slowest, {slowest.case}, took {slowest.seconds:.1f} s")
    return int(any(outcome.kind in WRONG for outcome in outcomes))


def report(outcomes: Sequence[Outcome], show_refusals: bool = False) -> str:
    """How many of each kind, and what is wrong, equal reasons together."""
    counts = Counter(outcome.kind for outcome in outcomes)
    lines = []
    for kind in (*WRONG, "guarded", *(["refused"] if show_refusals else [])):
        groups: dict[str, list[int]] = defaultdict(list)
        for outcome in outcomes:
            if outcome.kind == kind:
                groups[outcome.reason].append(outcome.case)
        for reason, cases in sorted(groups.items(), key=lambda item: -len(item[1])):
            lines.append(f"{kind:10} {len(cases):4} × {reason}  (case {', '.join(map(str, cases[:4]))})")
    return "\n".join([*lines, ", ".join(f"{counts[kind]} {kind}" for kind in (*RIGHT, *WRONG) if counts[kind])])


# The pool: workers are forked with the seeds in memory, and replaced when they die or hang


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    channel: Connection
    case: int | None = None
    stage: str = ""
    since: float = 0.0


def run(seeds: Sequence[bytes], cases: Sequence[int], count: int) -> Iterator[Outcome]:
    """Every case in one of `count` workers."""
    with tempfile.TemporaryDirectory(prefix="edgekit-fuzz-") as folder:
        waiting = list(reversed(cases))
        workers = [_start(seeds, folder) for _ in range(count)]
        try:
            while waiting or any(worker.case is not None for worker in workers):
                for worker in workers:
                    if worker.case is None and waiting:
                        worker.case, worker.stage, worker.since = waiting.pop(), "compile", time.monotonic()
                        worker.channel.send(worker.case)
                ready = wait([worker.channel for worker in workers if worker.case is not None], timeout=1.0)
                for place, worker in enumerate(workers):
                    outcome = _hear(worker, worker.channel in ready) if worker.case is not None else None
                    if outcome is None:
                        continue
                    yield outcome
                    worker.case = None
                    if outcome.kind in ("crash", "timeout") or not worker.process.is_alive():
                        _stop(worker)
                        workers[place] = _start(seeds, folder)
        finally:
            for worker in workers:
                _stop(worker)


def _hear(worker: _Worker, ready: bool) -> Outcome | None:
    """The outcome of a worker's case, if there is one."""
    assert worker.case is not None
    elapsed = time.monotonic() - worker.since
    if ready:
        try:
            said = worker.channel.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            return _ended(worker, "crash", f"exit code {worker.process.exitcode} in {worker.stage}", elapsed)
        if isinstance(said, Outcome):
            return said
        worker.stage = said
    elif elapsed > TIME_LIMIT:
        worker.process.kill()
        return _ended(worker, "timeout", f"not done after {TIME_LIMIT:.0f} s, in {worker.stage}", elapsed)
    return None


def _ended(worker: _Worker, kind: str, reason: str, elapsed: float) -> Outcome:
    """A worker died or hung; where onnxruntime did, there is nothing to compare with."""
    assert worker.case is not None
    return Outcome(worker.case, "unchecked" if worker.stage == "onnxruntime" else kind, reason, elapsed)


def _start(seeds: Sequence[bytes], folder: str) -> _Worker:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(seeds, theirs, tempfile.mkdtemp(dir=folder)), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.channel.close()


def _work(seeds: Sequence[bytes], channel: Connection, folder: str) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    attempt(seeds[0], Path("warm.onnx"), lambda stage: None)  # so that what is imported does not count as a case's memory
    _limit_memory()
    while True:
        case = channel.recv()
        start = time.monotonic()
        path = Path(f"case{case}.onnx")
        kind, reason = attempt(mutated(seeds, case), path, channel.send)
        left = [file.name for file in Path(".").iterdir()]
        if left:
            kind, reason = "left", ", ".join(left)
            for name in left:
                Path(name).unlink()
        channel.send(Outcome(case, kind, reason, time.monotonic() - start))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * resource.getpagesize() + MEMORY_LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# One case


def mutated(seeds: Sequence[bytes], case: int) -> bytes:
    """The file of a case."""
    import onnx

    rng = random.Random(case)
    return mutate(onnx.ModelProto.FromString(seeds[rng.randrange(len(seeds))]), rng)


def attempt(data: bytes, path: Path, say: Any) -> tuple[str, str]:
    """Compile a file, run the result, compare it with onnxruntime's; its kind and reason."""
    import onnx
    import onnx_ir  # noqa: F401  (a fault in an import is none of the case)

    from edgekit import hub, litert
    from edgekit.errors import EdgekitError
    from edgekit.onnx_file import read_onnx

    path.write_bytes(data)
    try:
        compiled = litert.compile_hub(hub.prepare(read_onnx(path).model))
    except EdgekitError as error:
        if "cannot be compiled (" in error.what and error.__cause__:  # the last resort: edgekit.hub.facts.unexpected
            return "memory" if isinstance(error.__cause__, MemoryError) else "guarded", _place(error.__cause__)
        return "refused", f"{type(error).__name__}: {error.what[:150]}"
    except MemoryError as error:
        return "memory", _place(error)
    except Exception as error:
        return "fault", _place(error)
    finally:
        path.unlink()
    rng = np.random.default_rng(0)
    if any(math.prod(dim for dim in b.shape if isinstance(dim, int)) > 1 << 22 for b in compiled.inputs):
        return "unchecked", "its inputs are large"
    feeds = {binding.source: _random_array(binding, rng) for binding in compiled.inputs}
    say("interpreter")
    try:
        results = _interpret(compiled, feeds)
    except Exception as error:
        kind = "unloadable"
        unloadable = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    else:
        kind = "agrees"
    say("onnxruntime")
    try:
        wanted = [_reference(data, feeds) for _ in range(2)]
    except Exception as error:
        return "unchecked", f"onnxruntime: {str(error)[:100]}"
    if reason := _incomparable(onnx.ModelProto.FromString(data)):
        return "unchecked", reason
    if kind == "unloadable":
        return kind, unloadable
    return _compare(wanted, results, quantized=b"QuantizeLinear" in data or b"QLinear" in data)


OTHERWISE = {
    "MaxUnpool": "onnxruntime ignores output_shape, ONNX's own test included",
    "LpPool": "high powers overflow elsewhere",
    "GridSample": "beyond the integers, onnxruntime's nearest pixel is undefined",
}


def _incomparable(model: Any) -> str:
    """Why onnxruntime's results are no measure for this model, empty where they are."""
    import onnx

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        if node.op_type in OTHERWISE:
            return OTHERWISE[node.op_type]
        scores = arrays.get(node.input[1]) if node.op_type == "NonMaxSuppression" and len(node.input) > 1 else None
        if scores is not None and np.unique(scores).size < scores.size:
            return "ONNX leaves open in which order boxes of equal scores come"
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays.values()):
        return "a weight is not finite, which clipping inside of onnxruntime's recurrent operators hides"
    return ""


def _interpret(compiled: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from edgekit.runtimes import Runner

    return dict(Runner(compiled.data, "tflite", compiled.inputs, compiled.outputs).run(feeds))


def _reference(data: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    fed = {value.name for value in session.get_inputs()}
    results = session.run(None, {name: array for name, array in feeds.items() if name in fed})
    for value, result in zip(session.get_outputs(), results, strict=True):
        declared = value.shape if isinstance(result, np.ndarray) else []
        if len(declared) != np.ndim(result) or any(
            isinstance(a, int) and a != b for a, b in zip(declared, np.shape(result), strict=True)
        ):
            raise ValueError(f"{value.name} is declared as {declared}, and is not")
    return dict(zip([value.name for value in session.get_outputs()], results, strict=True))


def _compare(wanted: Sequence[dict[str, np.ndarray]], results: dict[str, np.ndarray], quantized: bool) -> tuple[str, str]:
    """Quantized models may differ by steps of their scale, where a value lies between two."""
    for name, want in wanted[0].items():
        if not isinstance(want, np.ndarray) or name not in results:
            return "unchecked", "no tensors"
        have = results[name]
        if want.dtype.kind == "f" and not (np.abs(want) < 1e37).all():
            return "unchecked", "not finite"
        if not np.array_equal(want, wanted[1][name]):
            return "unchecked", "random"
        if have.shape != want.shape or have.dtype != want.dtype:
            return "wrong", f"{name} is {have.shape} {have.dtype}, not {want.shape} {want.dtype}"
        error = np.abs(have.astype(np.float64) - want.astype(np.float64)).max(initial=0.0)
        scale = np.abs(want.astype(np.float64)).max(initial=0.0)
        share = 5e-2 if quantized or want.dtype == np.float16 else 1e-4 if want.dtype.kind == "f" else 0.0
        step = 2.0 if quantized and want.dtype.itemsize == 1 else 0.0
        if not error <= max(share * max(scale, 1e-3), step):
            return "wrong", f"{name} differs by {error:.3g} where the largest value is {scale:.3g}"
    return "agrees", ""


def _random_array(binding: Any, rng: np.random.Generator) -> np.ndarray:
    """Numbers of an input's dtype and the source's shape; a dynamic dimension has the size 2, an integer by itself is 1."""
    dims = [dim if isinstance(dim, int) else 2 for dim in binding.shape]
    if binding.permutation is not None:
        dims = [dims[place] for place in np.argsort(binding.permutation)]
    dtype = np.dtype(binding.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(dims).astype(dtype)
    size = math.prod(dims)
    numbers = rng.permutation(size) if size > 1 else np.ones(size, np.int64)  # not 0 / 0 steps, which ONNX leaves open
    return (numbers % (2 if dtype.kind == "b" else 5)).reshape(dims).astype(dtype)


def _place(error: BaseException) -> str:
    """The error and the innermost lines of edgekit that it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}edgekit{os.sep}" in f.filename]
    lines = " < ".join(f"{Path(f.filename).parent.name}/{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:]))
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:110] if said else ''} [{lines}]"


def _show(seeds: Sequence[bytes], case: int, everything: bool) -> int:
    import onnx

    data = mutated(seeds, case)
    if everything:
        from edgekit import hub, litert
        from edgekit.onnx_file import convert_proto, parse_onnx

        try:
            print(onnx.printer.to_text(onnx.ModelProto.FromString(data))[:6000])
        except Exception as error:
            print(f"cannot be printed: {error}")
        try:
            litert.compile_hub(hub.prepare(convert_proto(parse_onnx(data))))
        except Exception:
            traceback.print_exc()
    with tempfile.TemporaryDirectory() as folder:
        kind, reason = attempt(data, Path(folder, "case.onnx"), lambda stage: None)
    print(f"{case}: {kind} {reason}")
    return int(kind in WRONG)


if __name__ == "__main__":
    sys.exit(main())
