"""Does conversion scale? Memory with the weights, time with the nodes.

    .venv/bin/python scripts/bench_scale.py memory                  # 128 MB … 2.2 GB of weights: peak memory, time, values
    .venv/bin/python scripts/bench_scale.py nodes                   # 1,000 … 20,000 nodes: time per node
    .venv/bin/python scripts/bench_scale.py nodes --profile transformer --counts 5000

Peak memory is that of a fresh process that reads a file, compiles it, and writes the result; the mapped pages of the source that
were touched count. The exit code is 1 where a bound of docs/robustness.md does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

MEGABYTE = 1 << 20
MEMORY_BOUND = 2.5  # times the weights, and
MEMORY_BASE = 200 * MEGABYTE  # for the interpreter and the libraries
SIZES = (128, 512, 2200)  # MB of weights
COUNTS = (1000, 5000, 20000)
GROWTH_BOUND = 2.0  # time per node of the largest graph over that of the smallest
WIDTH = 2048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    memory = commands.add_parser("memory", help="peak memory and time by size of the weights")
    memory.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="MB")
    memory.set_defaults(run=lambda options: bench_memory(options.sizes))
    nodes = commands.add_parser("nodes", help="time by number of nodes")
    nodes.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    nodes.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    nodes.add_argument("--profile", choices=list(KINDS), help="print where the time goes instead")
    nodes.set_defaults(run=lambda o: profile(o.profile, o.counts[-1]) if o.profile else bench_nodes(o.kinds, o.counts))
    measure = commands.add_parser("measure", help="one conversion, as JSON: what `memory` starts")
    measure.add_argument("source", type=Path)
    measure.add_argument("result", type=Path)
    measure.set_defaults(run=lambda options: measure_one(options.source, options.result))
    options = parser.parse_args()
    return options.run(options)


# Memory


def bench_memory(sizes: list[int]) -> int:
    """Convert models of these sizes (MB), each as a single file where protobuf allows it, and with external data."""
    print("| weights | network | source | peak | over the weights | seconds | values |")
    print("| ---: | --- | --- | ---: | ---: | ---: | --- |")
    within = True
    with tempfile.TemporaryDirectory(prefix="edgekit-scale-") as folder:
        for size in sizes:
            for kind, save in BIG_MODELS.items():
                for external in (False, True):
                    if size >= 2000 and (not external or kind != "dense"):
                        continue  # protobuf ends at 2 GB; one network is enough above
                    source, result = Path(folder, "model.onnx"), Path(folder, "model.tflite")
                    weights = save(source, size, external)
                    found = json.loads(
                        subprocess.run(
                            [sys.executable, __file__, "measure", str(source), str(result)], stdout=subprocess.PIPE, check=True
                        ).stdout
                    )
                    right = check_values(source, result)
                    ratio = (found["peak"] - MEMORY_BASE) / weights
                    within = within and ratio <= MEMORY_BOUND and right == "agree"
                    where = "external data" if external else "one file"
                    print(
                        f"| {weights / MEGABYTE:,.0f} MB | {kind} | {where} | {found['peak'] / MEGABYTE:,.0f} MB "
                        f"| {found['peak'] / weights:.2f} × | {found['seconds']:.1f} | {right} |",
                        flush=True,
                    )
                    for file in Path(folder).iterdir():
                        file.unlink()
    return int(not within)


def measure_one(source: Path, result: Path) -> int:
    """Convert a file in this process, and say what it took."""
    from edgekit import litert

    start = time.monotonic()
    result.write_bytes(litert.compile(source))
    seconds = time.monotonic() - start
    print(json.dumps({"peak": _peak(), "seconds": seconds}))
    return 0


def _peak() -> int:
    """The most memory that this process has held, in bytes. `ru_maxrss` would count what its parent held when it started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def check_values(source: Path, result: Path) -> str:
    """Run the file through the interpreter and numpy: `agree`, or how far apart they are."""
    from ai_edge_litert.interpreter import Interpreter

    from edgekit.onnx_file import read_onnx

    graph = read_onnx(source).model.graph
    shape = [int(dim) for dim in graph.inputs[0].shape.dims]  # type: ignore[union-attr, arg-type]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    runner = Interpreter(model_path=str(result), num_threads=1).get_signature_runner()
    (found,) = runner(**{runner.get_input_details().popitem()[0]: x}).values()
    known = {value: value.const_value.numpy() for value in graph.initializers.values() if value.const_value is not None}
    known[graph.inputs[0]] = x
    for node in graph:
        known[node.outputs[0]] = NUMPY[node.op_type](*(known[value] for value in node.inputs if value is not None))
    want = known[graph.outputs[0]]
    error = float(np.abs(found - want).max() / np.abs(want).max())
    return "agree" if error < 1e-4 else f"differ by {error:.2g}"


def _convolve(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1 × 1."""
    return np.einsum("nchw,oc->nohw", x, weights[:, :, 0, 0])


def _normalize(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    wide = [part.reshape(-1, 1, 1) for part in (scale, bias, mean, variance)]
    return (x - wide[2]) / np.sqrt(wide[3] + 1e-5) * wide[0] + wide[1]


NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "MatMul": np.matmul,
    "Relu": lambda x: np.maximum(x, 0),
    "Conv": _convolve,
    "BatchNormalization": _normalize,
}


def save_dense(path: Path, megabytes: int, external: bool) -> int:
    """MatMul → Relu, again and again; returns the bytes of the weights."""
    from onnx import helper

    count = max(2, megabytes * MEGABYTE // (WIDTH * WIDTH * 4))
    nodes, names = [], ["x"]
    for i in range(count):
        nodes += [
            helper.make_node("MatMul", [names[-1], f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        names.append(f"r{i}")
    rng = np.random.default_rng(0)
    scale = np.float32(1.4 / np.sqrt(WIDTH))
    weights = ((f"w{i}", rng.standard_normal((WIDTH, WIDTH), np.float32) * scale) for i in range(count))
    return _save(path, nodes, weights, [1, WIDTH], names[-1], external)


def save_convolutions(path: Path, megabytes: int, external: bool) -> int:
    """Conv → BatchNormalization → Relu: every weight is scaled while it is converted."""
    from onnx import helper

    count = max(2, megabytes * MEGABYTE // (WIDTH * WIDTH * 4))
    nodes, names = [], ["x"]
    for i in range(count):
        parts = [f"{part}{i}" for part in ("scale", "bias", "mean", "variance")]
        nodes += [
            helper.make_node("Conv", [names[-1], f"w{i}"], [f"c{i}"]),
            helper.make_node("BatchNormalization", [f"c{i}", *parts], [f"b{i}"]),
            helper.make_node("Relu", [f"b{i}"], [f"r{i}"]),
        ]
        names.append(f"r{i}")
    rng = np.random.default_rng(0)

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        for i in range(count):
            yield f"w{i}", rng.standard_normal((WIDTH, WIDTH, 1, 1), np.float32) / np.float32(np.sqrt(WIDTH))
            for part in ("scale", "bias", "mean", "variance"):
                yield f"{part}{i}", rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)

    return _save(path, nodes, weights(), [1, WIDTH, 2, 2], names[-1], external)


BIG_MODELS: dict[str, Callable[[Path, int, bool], int]] = {"dense": save_dense, "convolutions": save_convolutions}


def _save(
    path: Path, nodes: list, weights: Iterator[tuple[str, np.ndarray]], shape: list[int], output: str, external: bool
) -> int:
    """Write a model; external data go to the file one weight at a time."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensors, place = [], 0
    with path.with_suffix(".data").open("wb") as file:
        for name, array in weights:
            if not external:
                tensors.append(numpy_helper.from_array(array, name))
            else:
                tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL)
                entries = {"location": path.with_suffix(".data").name, "offset": str(place), "length": str(array.nbytes)}
                for key, value in entries.items():
                    tensor.external_data.add(key=key, value=value)
                file.write(array.tobytes())
                tensors.append(tensor)
            place += array.nbytes
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", output))
    graph = helper.make_graph(nodes, "big", [x], [y], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return place


# Nodes


def bench_nodes(kinds: list[str], counts: list[int]) -> int:
    """Time per node of graphs of growing size."""
    print("| graph | nodes | prepare, s | compile, s | µs per node | to the smallest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    within = True
    _convert(KINDS["chain"](50))  # imports
    for kind in kinds:
        first = 0.0
        for count in counts:
            model = KINDS[kind](count)
            nodes = len(model.graph.node)
            prepared, compiled = _convert(model)
            each = (prepared + compiled) / nodes
            first = first or each
            within = within and each / first <= GROWTH_BOUND
            print(f"| {kind} | {nodes:,} | {prepared:.2f} | {compiled:.2f} | {each * 1e6:.0f} | {each / first:.2f} |", flush=True)
    return int(not within)


def profile(kind: str, count: int) -> int:
    """Print the functions that take the most time of their own."""
    import cProfile
    import pstats

    model = KINDS[kind](count)
    _convert(KINDS["chain"](50))
    profiler = cProfile.Profile()
    profiler.enable()
    _convert(model)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return 0


def _convert(proto: ModelProto) -> tuple[float, float]:
    """CPU seconds of prepare and of compile."""
    from edgekit import hub, litert
    from edgekit.onnx_file import convert_proto

    model = convert_proto(proto)
    start = time.process_time()
    prepared = hub.prepare(model)
    middle = time.process_time()
    litert.compile_hub(prepared)
    return middle - start, time.process_time() - middle


def chain(count: int) -> ModelProto:
    """Elementwise operators one after the other."""
    lines = [
        f"v{i + 1} = {'Add' if i % 3 else 'Sin' if i % 2 else 'Mul'}(v{i}{', c' if i % 3 or not i % 2 else ''})"
        for i in range(count)
    ]
    return _parse("float[1,4,8] v0", f"float[1,4,8] v{count}", lines, c=np.full((1, 4, 8), 1.001, np.float32))


def residual(count: int) -> ModelProto:
    """Blocks of two convolutions, BatchNormalizations and an addition, NCHW."""
    lines = []
    blocks = count // 7
    for i in range(blocks):
        lines += [
            f"a{i} = Conv<pads=[1,1,1,1]>(v{i}, w)", f"b{i} = BatchNormalization(a{i}, s, s, m, s)", f"c{i} = Relu(b{i})",
            f"d{i} = Conv<pads=[1,1,1,1]>(c{i}, w)", f"e{i} = BatchNormalization(d{i}, s, s, m, s)", f"f{i} = Add(e{i}, v{i})",
            f"v{i + 1} = Relu(f{i})",
        ]  # fmt: skip
    scale, mean = np.linspace(0.5, 1.5, 4).astype(np.float32), np.linspace(-1, 1, 4).astype(np.float32)
    weights = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
    return _parse("float[1,4,8,8] v0", f"float[1,4,8,8] v{blocks}", lines, w=weights, s=scale, m=mean)


def keras(count: int) -> ModelProto:
    """What Keras exports: channels last, with a Transpose before and after every convolution."""
    lines = []
    blocks = count // 6
    for i in range(blocks):
        lines += [
            f"a{i} = Transpose<perm=[0,3,1,2]>(v{i})", f"b{i} = Conv<pads=[1,1,1,1]>(a{i}, w)",
            f"c{i} = Transpose<perm=[0,2,3,1]>(b{i})", f"d{i} = Mul(c{i}, s)", f"e{i} = Add(d{i}, m)",
            f"v{i + 1} = Add(e{i}, v{i})",
        ]  # fmt: skip
    scale, mean = np.linspace(0.5, 1.5, 4).astype(np.float32), np.linspace(-1, 1, 4).astype(np.float32)
    weights = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
    return _parse("float[1,8,8,4] v0", f"float[1,8,8,4] v{blocks}", lines, w=weights, s=scale, m=mean)


def transformer(count: int) -> ModelProto:
    """Encoder layers as exporters write them, shapes computed from Shape."""
    lines = []
    layers = count // 32
    for i in range(layers):
        lines += [
            f"n{i} = LayerNormalization(v{i}, g, g)", f"h{i} = Shape(n{i})", f"z{i} = Gather<axis=0>(h{i}, zero)",
            f"y{i} = Unsqueeze(z{i}, first)", f"t{i} = Concat<axis=0>(y{i}, split)",
        ]  # fmt: skip
        for part, perm in (("q", "0,2,1,3"), ("k", "0,2,3,1"), ("v", "0,2,1,3")):
            lines += [
                f"{part}a{i} = MatMul(n{i}, w{part})", f"{part}b{i} = Add({part}a{i}, g)",
                f"{part}c{i} = Reshape({part}b{i}, t{i})", f"{part}d{i} = Transpose<perm=[{perm}]>({part}c{i})",
            ]  # fmt: skip
        lines += [
            f"s{i} = MatMul(qd{i}, kd{i})", f"p{i} = Mul(s{i}, half)", f"o{i} = Softmax<axis=-1>(p{i})",
            f"c{i} = MatMul(o{i}, vd{i})", f"ct{i} = Transpose<perm=[0,2,1,3]>(c{i})", f"cj{i} = Concat<axis=0>(y{i}, joined)",
            f"cr{i} = Reshape(ct{i}, cj{i})", f"cm{i} = MatMul(cr{i}, wq)", f"cb{i} = Add(cm{i}, g)", f"x{i} = Add(cb{i}, v{i})",
            f"l{i} = LayerNormalization(x{i}, g, g)", f"u{i} = MatMul(l{i}, wk)", f"ub{i} = Add(u{i}, g)", f"ug{i} = Gelu(ub{i})",
            f"v{i + 1} = Add(ug{i}, x{i})",
        ]  # fmt: skip
    rng = np.random.default_rng(0)
    constants = {f"w{part}": rng.standard_normal((8, 8)).astype(np.float32) / 3 for part in "qkv"}
    constants |= {"g": np.linspace(0.5, 1, 8).astype(np.float32), "half": np.float32(0.5), "zero": np.int64(0)}
    constants |= {"first": np.array([0]), "split": np.array([4, 2, 4]), "joined": np.array([4, 8])}
    return _parse("float[2,4,8] v0", f"float[2,4,8] v{layers}", lines, **constants)


def fan(count: int) -> ModelProto:
    """One value that every other node reads, and a sum of all."""
    lines = ["r = Relu(v0)", "s0 = Sin(r)"]
    steps = count // 3
    for i in range(steps):
        lines += [f"a{i} = Mul(r, c{i})", f"b{i} = Identity(a{i})", f"s{i + 1} = Sub(s{i}, b{i})"]
    factors = {f"c{i}": np.float32(1 / (i + 2)) for i in range(steps)}
    return _parse("float[1,4,8] v0", f"float[1,4,8] s{steps}", lines, **factors)


KINDS: dict[str, Callable[[int], ModelProto]] = {
    "fan": fan,
    "chain": chain,
    "residual": residual,
    "keras": keras,
    "transformer": transformer,
}


def _parse(inputs: str, outputs: str, lines: list[str], **constants: np.ndarray) -> ModelProto:
    import onnx
    import onnx.parser

    graph = "\n".join(lines)
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => ({outputs}) {{ {graph} }}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
    return model


if __name__ == "__main__":
    sys.exit(main())
