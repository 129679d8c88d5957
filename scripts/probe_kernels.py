"""What each builtin kernel of the installed LiteRT takes: the dtypes and ranks at which it gives the right result.

    .venv/bin/python scripts/probe_kernels.py            # prints the table of edgekit/litert/kernels.py

One-operator models are run with XNNPACK and with the builtin kernels alone, each in a process of its own, and compared with
numpy: a kernel that crashes, refuses a dtype, or takes it for a quantized one and computes something else does not count.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.write import write

DTYPES = "float32 float16 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()
LARGEST_RANK = 8
CAST_OPTIONS = {"inDataType": lambda source, result: source, "outDataType": lambda source, result: result}


@dataclass(frozen=True)
class Probe:
    """One operator: numpy's version of it, and its operands for a shape. `None` in `constants` is a computed operand."""

    code: str
    compute: Callable[..., Any]
    operands: int = 1
    constants: Callable[[int], list[np.ndarray]] = lambda rank: []
    options: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] | None = None
    result: str | None = None
    broadcast: bool = False
    ranks: range = range(1, LARGEST_RANK + 1)


def main() -> None:
    for probe in PROBES:
        if len(sys.argv) > 1 and probe.code not in sys.argv[1:]:
            continue
        dtypes = [d for d in DTYPES if _works(probe, d, 2 if 2 in probe.ranks else probe.ranks[0])]
        kind = dtypes[0] if dtypes else "float32"
        ranks = [r for r in probe.ranks if _works(probe, kind, r)]
        print(f'    "{probe.code}": Kernel("{" ".join(dtypes)}", {max(ranks, default=0)}),  # ranks {ranks}', flush=True)


def _works(probe: Probe, dtype: str, rank: int) -> bool:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_try, args=(probe, dtype, rank, queue))
    process.start()
    process.join(20)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0 and not queue.empty() and bool(queue.get())


def _try(probe: Probe, dtype: str, rank: int, queue: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    arrays = list(_operands(probe, np.dtype(dtype), rank))
    constants = probe.constants(rank)
    with np.errstate(all="ignore"):
        wanted = probe.compute(*arrays, *constants)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    if probe.result is None:
        wanted = tuple(w if w.dtype in (np.bool_, np.int32) and w.dtype != arrays[0].dtype else w.astype(dtype) for w in wanted)
    fed = [Tensor(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
    given = fed + [Tensor(f"c{i}", c.shape, c.dtype, c) for i, c in enumerate(constants)]
    if probe.order:
        given = [given[i] for i in probe.order]
    outs = [Tensor(f"y{i}", w.shape, w.dtype) for i, w in enumerate(wanted)]
    options = {k: v(fed[0].dtype, outs[0].dtype) if callable(v) else v for k, v in probe.options.items()}
    data = write(Graph("probe", fed, outs, [Operator(probe.code, given, outs, options)]), "probe")
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        try:
            runner = Interpreter(model_content=data, experimental_op_resolver_type=kernels).get_signature_runner(
                "serving_default"
            )
            results = runner(**{t.name: a for t, a in zip(fed, arrays, strict=True)})
        except (RuntimeError, ValueError):
            queue.put(False)
            return
        for out, want in zip(outs, wanted, strict=True):
            have = results[out.name]
            slack = 2e-3 if dtype == "float16" else 1e-5
            if have.shape != want.shape or not np.allclose(have.astype("f8"), want.astype("f8"), rtol=slack, atol=slack):
                queue.put(False)
                return
    queue.put(True)


def _operands(probe: Probe, dtype: np.dtype, rank: int) -> Iterator[np.ndarray]:
    """Small positive numbers, which every dtype holds; with `broadcast`, every other axis of each operand in turn is 1."""
    generator = np.random.default_rng(0)
    for i in range(probe.operands):
        shape = [2 if not probe.broadcast or (axis + i) % 2 else 1 for axis in range(rank)]
        if not probe.broadcast and probe.code in ("BATCH_MATMUL", "SOFTMAX"):
            shape = [2] * rank
        yield generator.integers(0 if dtype.kind == "b" else 1, 2 if dtype.kind == "b" else 5, size=shape).astype(dtype)


def _unary(code: str, compute: Callable[..., Any], **rest: Any) -> Probe:
    return Probe(code, lambda x: compute(x.astype("f8")) if x.dtype.kind == "f" else compute(x), **rest)


def _binary(code: str, compute: Callable[..., Any], **rest: Any) -> Probe:
    return Probe(code, compute, 2, broadcast=True, **rest)


def _i32(*values: Any) -> list[np.ndarray]:
    return [np.array(v, np.int32) for v in values]


def _reduce(code: str, compute: Callable[..., Any]) -> Probe:
    return Probe(
        code, lambda x, a: compute(x, axis=tuple(a), keepdims=True), constants=lambda r: _i32([r - 1]), options={"keepDims": True}
    )


def _scatter(index: np.ndarray, updates: np.ndarray, shape: np.ndarray) -> np.ndarray:
    result = np.zeros(shape, updates.dtype)
    result[index[:, 0]] = updates
    return result


PROBES = [
    _unary("ABS", np.abs),
    _unary("CEIL", np.ceil),
    _unary("COS", np.cos),
    _unary("ELU", lambda x: x),
    _unary("EXP", np.exp),
    _unary("FLOOR", np.floor),
    _unary("GELU", lambda x: np.vectorize(math.erf)(x / np.sqrt(2)) * x / 2 + x / 2, options={"approximate": False}),
    _unary("HARD_SWISH", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    _unary("LEAKY_RELU", lambda x: x, options={"alpha": 0.5}),
    _unary("LOG", np.log),
    _unary("LOGICAL_NOT", np.logical_not),
    _unary("LOGISTIC", lambda x: 1 / (1 + np.exp(-x))),
    _unary("NEG", np.negative),
    _unary("RELU", lambda x: np.maximum(x, 0)),
    _unary("RELU6", lambda x: np.clip(x, 0, 6)),
    _unary("RELU_N1_TO_1", lambda x: np.clip(x, -1, 1)),
    _unary("RELU_0_TO_1", lambda x: np.clip(x, 0, 1)),
    _unary("ROUND", np.round),
    _unary("RSQRT", lambda x: 1 / np.sqrt(x)),
    _unary("SIGN", np.sign),
    _unary("SIN", np.sin),
    _unary("SQRT", np.sqrt),
    _unary("SQUARE", np.square),
    _unary("TANH", np.tanh),
    _unary("ZEROS_LIKE", np.zeros_like),
    _binary("ADD", np.add),
    _binary("SUB", np.subtract),
    _binary("MUL", np.multiply),
    _binary("DIV", lambda a, b: a // b if a.dtype.kind in "iu" else a / b),
    _binary("FLOOR_DIV", lambda a, b: a // b),
    _binary("FLOOR_MOD", lambda a, b: a % b),
    _binary("POW", np.power),
    _binary("ATAN2", np.arctan2),
    _binary("MAXIMUM", np.maximum),
    _binary("MINIMUM", np.minimum),
    _binary("SQUARED_DIFFERENCE", lambda a, b: (a - b) ** 2),
    _binary("EQUAL", np.equal, result="bool"),
    _binary("NOT_EQUAL", np.not_equal, result="bool"),
    _binary("GREATER", np.greater, result="bool"),
    _binary("GREATER_EQUAL", np.greater_equal, result="bool"),
    _binary("LESS", np.less, result="bool"),
    _binary("LESS_EQUAL", np.less_equal, result="bool"),
    _binary("LOGICAL_AND", np.logical_and),
    _binary("LOGICAL_OR", np.logical_or),
    _binary("BITWISE_XOR", np.bitwise_xor),
    _binary("RIGHT_SHIFT", lambda a, b: a >> b),
    Probe(
        "SELECT_V2", lambda a, b, c: np.where(c, a, b), 2, lambda r: [np.ones((1,) * r, bool)], order=(2, 0, 1), broadcast=True
    ),
    Probe("PRELU", lambda x, s: np.where(x > 0, x, x * s), 1, lambda r: [np.full(2, 0.5, "f4")], ranks=range(2, 9)),
    _reduce("SUM", np.sum),
    _reduce("MEAN", np.mean),
    _reduce("REDUCE_MAX", np.max),
    _reduce("REDUCE_MIN", np.min),
    _reduce("REDUCE_PROD", np.prod),
    _reduce("REDUCE_ANY", np.any),
    _reduce("REDUCE_ALL", np.all),
    Probe("CUMSUM", lambda x, a: np.cumsum(x, int(a)), constants=lambda r: _i32(r - 1)),
    Probe(
        "ARG_MAX",
        lambda x, a: np.argmax(x, int(a)).astype("i4"),
        constants=lambda r: _i32(r - 1),
        options={"outputType": np.dtype("i4")},
        result="i",
    ),
    Probe(
        "ARG_MIN",
        lambda x, a: np.argmin(x, int(a)).astype("i4"),
        constants=lambda r: _i32(r - 1),
        options={"outputType": np.dtype("i4")},
        result="i",
    ),
    Probe(
        "TOPK_V2",
        lambda x, k: (np.sort(x, -1)[..., ::-1], np.argsort(-x.astype("f8"), -1, kind="stable").astype("i4")),
        constants=lambda r: _i32(2),
    ),
    _unary("SOFTMAX", lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), options={"beta": 1.0}),
    _unary("LOG_SOFTMAX", lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
    Probe("RESHAPE", lambda x, s: x.reshape(s), constants=lambda r: _i32([-1])),
    Probe("TRANSPOSE", lambda x, p: x.transpose(p), constants=lambda r: _i32(list(reversed(range(r))))),
    Probe("CONCATENATION", lambda a, b: np.concatenate([a, b], 0), 2, options={"axis": 0}),
    Probe("PACK", lambda a, b: np.stack([a, b], 0), 2, options={"axis": 0, "valuesCount": 2}),
    Probe("SPLIT", lambda x, a: tuple(np.split(x, 2, 0)), constants=lambda r: _i32(0), order=(1, 0), options={"numSplits": 2}),
    Probe("SPLIT_V", lambda x, s, a: tuple(np.split(x, 2, 0)), constants=lambda r: _i32([1, 1], 0), options={"numSplits": 2}),
    Probe("SLICE", lambda x, b, s: x[(slice(1, 2),) * x.ndim], constants=lambda r: _i32([1] * r, [1] * r)),
    Probe("STRIDED_SLICE", lambda x, b, e, s: x[(slice(0, 2, 2),) * x.ndim], constants=lambda r: _i32([0] * r, [2] * r, [2] * r)),
    Probe("PAD", lambda x, p: np.pad(x, p), constants=lambda r: _i32([[1, 1]] * r)),
    Probe("UNPACK", lambda x: tuple(x), options={"num": 2, "axis": 0}),
    Probe("SQUEEZE", lambda x: x, options={"squeezeDims": np.zeros(0, np.int32)}),
    Probe(
        "MIRROR_PAD", lambda x, p: np.pad(x, p, "reflect"), constants=lambda r: _i32([[1, 1]] * r), options={"mode": "REFLECT"}
    ),
    Probe("TILE", lambda x, m: np.tile(x, m), constants=lambda r: _i32([2] * r)),
    Probe("BROADCAST_TO", lambda x, s: np.broadcast_to(x, s), constants=lambda r: _i32([2] * (r + 1))),
    Probe("GATHER", lambda x, i: np.take(x, i, 0), constants=lambda r: _i32([1, 0, 1]), options={"axis": 0, "batchDims": 0}),
    Probe("GATHER_ND", lambda x, i: x[i[:, 0]], constants=lambda r: _i32([[1], [0]])),
    Probe(
        "SCATTER_ND",
        lambda u, i, s: _scatter(i, u, s),
        constants=lambda r: _i32([[1], [0]], [3] + [2] * (r - 1)),
        order=(1, 0, 2),
    ),
    Probe("REVERSE_V2", lambda x, a: x[::-1], constants=lambda r: _i32([0])),
    Probe(
        "REVERSE_SEQUENCE",
        lambda x, n: x[:, ::-1],
        constants=lambda r: _i32([2, 2]),
        options={"seqDim": 1, "batchDim": 0},
        ranks=range(2, 9),
    ),
    Probe("EXPAND_DIMS", lambda x, a: x[None], constants=lambda r: _i32(0)),
    Probe(
        "FILL",
        lambda v, s: np.full(s, v.reshape(-1)[0], v.dtype),
        constants=lambda r: _i32([2, 3]),
        order=(1, 0),
        ranks=range(0, 1),
    ),
    Probe("BATCH_MATMUL", np.matmul, 2, options={"adjX": False, "adjY": False}, ranks=range(2, 9)),
    Probe("DEPTH_TO_SPACE", lambda x: x.reshape(2, 2, 2, 2), options={"blockSize": 1}, ranks=range(4, 5)),
    Probe("SPACE_TO_DEPTH", lambda x: x.reshape(2, 2, 2, 2), options={"blockSize": 1}, ranks=range(4, 5)),
    *(
        Probe(
            "CAST",
            lambda x, to=to: x.astype(to),
            result=to,
            options={"inDataType": lambda a, b: a, "outDataType": lambda a, b: b},
        )
        for to in DTYPES
    ),
    Probe("WHERE", lambda x: np.argwhere(x).astype("i8"), result="i"),
]


if __name__ == "__main__":
    main()
