"""onnxruntime as a tool: load a model, or let it rewrite one, without leaving anything behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ArtifactError
from edgekit.telemetry import load_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Protocol buffers end at 2 GiB; a larger model would need its weights in files beside it.
LARGEST_MODEL = 2**31 - 2**20

# `basic` rewrites only into standard ONNX operators, so that the result runs in any ONNX runtime. `all` adds the fused kernels
# of onnxruntime (com.microsoft). NCHWc is left out of both: it ties a file to the vector width of the machine that wrote it.
LEVELS = ("none", "basic", "all")
_MACHINE_SPECIFIC = ["NchwcTransformer"]


def open_session(model: bytes, *, name: str = "the model", optimize: str = "all", threads: int = 1) -> InferenceSession:
    """An onnxruntime session on the CPU.

    Raises:
        ArtifactError: onnxruntime refuses the model.
    """
    return _session(model, _options(optimize, threads), name, exclude=[])


def rewrite(model: bytes, *, optimize: str, ort_format: bool = False, name: str = "the model") -> bytes:
    """The model after onnxruntime's own graph optimizations, as an ONNX file or in ORT format.

    Raises:
        ArtifactError: onnxruntime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder, "model")
        options = _options(optimize, threads=1)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT" if ort_format else "ONNX")
        # int8 stays int8: on x86 onnxruntime would turn it into uint8, which is slower on ARM. It does so at load instead.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        _session(model, options, name, exclude=_MACHINE_SPECIFIC)
        return path.read_bytes()


def _options(optimize: str, threads: int):  # type: ignore[no-untyped-def]
    ort = load_onnxruntime()
    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "all": levels.ORT_ENABLE_ALL,
    }[optimize]
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _session(model: bytes, options: object, name: str, exclude: list[str]) -> InferenceSession:
    ort = load_onnxruntime()
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=exclude or None)
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"onnxruntime does not load {name}", where=reason, fix="report the model's operators") from error
