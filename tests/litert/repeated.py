"""Runs one interpreter several times: what it answers must not depend on what it was asked before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit import hub
from edgekit.litert import Compiled, compile_hub

from .running import relative_error, source_results

KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
Arrays = dict[str, np.ndarray]


def compiled(source: onnx.ModelProto, shapes: dict[str, tuple[int | str, ...]] | None = None) -> Compiled:
    """The whole way: hub, then compiler."""
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    return compile_hub(hub.prepare(ir.serde.deserialize_model(copy), shapes=shapes or {}))


def runner(artifact: Compiled, kernels: OpResolverType = OpResolverType.AUTO) -> Callable[[Arrays], Arrays]:
    """One interpreter, kept from call to call."""
    interpreter = Interpreter(model_content=artifact.data, num_threads=1, experimental_op_resolver_type=kernels)
    signature = interpreter.get_signature_runner()

    def run(feeds: Arrays) -> Arrays:
        made = signature(**{b.artifact: b.to_artifact(feeds[b.source]) for b in artifact.inputs})
        return {b.source: b.to_source(made[b.artifact]) for b in artifact.outputs}

    return run


def worst_error(source: onnx.ModelProto, feeds: Sequence[Arrays], expected: Sequence[Arrays] | None = None) -> float:
    """The largest relative error over all outputs, feeds in turn, with XNNPACK and with the builtin kernels.

    Args:
        expected: What onnxruntime computes where it is not given.
    """
    artifact = compiled(source)
    wanted = [source_results(source, fed) for fed in feeds] if expected is None else expected
    worst = 0.0
    for kernels in KERNELS:
        run = runner(artifact, kernels)
        for fed, results in zip([*feeds, feeds[0]], [*wanted, wanted[0]], strict=True):
            made = run(fed)
            worst = max([worst, *(relative_error(results[name], made[name]) for name in results)])
    return worst
