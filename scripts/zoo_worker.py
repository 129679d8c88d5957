"""What happens to one network of the zoo, each step in a process of its own: exported once, then converted and checked.

The export folder holds `model.onnx`, `values.npz` (feeds and the source framework's results) and `about.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from zoo_models import Entry

from edgekit.contract import Results
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    import onnx_ir

TOLERANCE = 1e-4
"""The largest relative error, max |a - b| / max |a|, of an FP32 artifact."""
CONDITION = 4.0
"""A network counts as ill-conditioned where onnxruntime is off as well, by at least this fraction (1/CONDITION) of our error."""
BROKEN = 1e-2
"""From which error on, in onnxruntime, the exported graph is not the network."""
OUTCOMES = ("exact", "ill-conditioned", "wrong", "fault", "crash", "timeout", "memory", "refused", "no source")
"""exact: within TOLERANCE; fault: an exception that is none of edgekit's; no source: the framework fails or does not export."""


@dataclass(frozen=True)
class Result:
    """What became of one network. Figures are None where it did not get so far.

    Args:
        reason: Why the outcome is not `exact`.
        error: Of the FP32 TFLite against the source framework, the worst output.
        ort_error: The same of onnxruntime on the exported graph.
        nodes: Of the exported graph.
        operators: Of the TFLite file, by name.
        bytes, weight_bytes: Of the file, and of the exported graph's constants.
        hub_s, compile_s: CPU seconds of hub.prepare and of compile_hub.
    """

    name: str
    outcome: str
    reason: str = ""
    error: float | None = None
    ort_error: float | None = None
    nodes: int | None = None
    operators: Mapping[str, int] | None = None
    bytes: int | None = None
    weight_bytes: int | None = None
    hub_s: float | None = None
    compile_s: float | None = None


def export(entry: Entry, folder: Path) -> None:
    """Build the network, run it, export it, and write all three into `folder`."""
    import onnx_ir

    source, feeds = entry.build()
    results = source.run(feeds)
    strange = [name for name, array in results.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if strange:
        raise ValueError(f"the source gives numbers that are not finite in {strange[0]}")
    model = source.to_onnx()
    onnx_ir.save(model, folder / "model.onnx")
    values = {f"feed {name}": array for name, array in feeds.items()}
    values |= {f"result {name}": array for name, array in results.items()}
    np.savez(folder / "values.npz", **values)
    about = {"nodes": sum(1 for _ in model.graph.all_nodes()), "notes": model.metadata_props.get("edgekit.notes", "")}
    (folder / "about.json").write_text(json.dumps(about))


def check(name: str, folder: Path, keep: Path | None = None) -> Result:
    """Convert the exported graph, run it, and compare; `keep` is where the TFLite file is left."""
    import onnx_ir

    from edgekit.hub import prepare
    from edgekit.litert import compile_hub
    from edgekit.runtimes import Runner

    about = json.loads((folder / "about.json").read_text())
    feeds, wanted = _values(folder)
    facts: dict = {"nodes": about["nodes"]}
    try:
        model = onnx_ir.load(folder / "model.onnx")
        facts["weight_bytes"] = _constant_bytes(model)
        start = time.process_time()
        hub = prepare(model)
        middle = time.process_time()
        compiled = compile_hub(hub)
        facts |= {"hub_s": round(middle - start, 3), "compile_s": round(time.process_time() - middle, 3)}
        facts |= {"operators": compiled.operators, "bytes": len(compiled.data)}
        if keep:
            keep.write_bytes(compiled.data)
        got = Runner(compiled.data, "tflite", compiled.inputs, compiled.outputs).run(feeds)
    except EdgekitError as error:
        return Result(name, "refused", " · ".join(str(error).split("\n")), **facts)
    facts["error"] = _error(wanted, got)
    if facts["error"] <= TOLERANCE:
        return Result(name, "exact", **facts)
    worst = max(wanted, key=lambda key: _error({key: wanted[key]}, got))
    return Result(name, "wrong", f"off by {facts['error']:.1e} in {worst}", **facts)


def onnxruntime_error(folder: Path) -> float:
    """How far onnxruntime is from the source framework on the exported graph."""
    from edgekit.runtimes import open_session

    feeds, wanted = _values(folder)
    session = open_session(folder / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    got = session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()})
    return _error(wanted, dict(zip(names, got, strict=True)))


def conclude(result: Result, ort_error: float) -> Result:
    """The result of a check in the light of onnxruntime's own error."""
    result = replace(result, ort_error=ort_error)
    if result.outcome != "wrong" or result.error is None:
        return result
    if ort_error > BROKEN:
        return replace(result, outcome="no source", reason=f"the exported graph is off by {ort_error:.1e} in onnxruntime as well")
    outcome = "ill-conditioned" if result.error <= CONDITION * ort_error else "wrong"
    return replace(result, outcome=outcome, reason=f"{result.reason}, onnxruntime by {ort_error:.1e}")


def _constant_bytes(model: onnx_ir.Model) -> int:
    """Of initializers and of Constant nodes."""
    held = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    nodes = [
        node.attributes["value"] for node in model.graph.all_nodes() if node.op_type == "Constant" and "value" in node.attributes
    ]
    return held + sum(attribute.as_tensor().nbytes for attribute in nodes)


def _values(folder: Path) -> tuple[Results, Results]:
    with np.load(folder / "values.npz") as stored:
        both = {key: stored[key] for key in stored.files}
    split = [{k.partition(" ")[2]: v for k, v in both.items() if k.startswith(f"{side} ")} for side in ("feed", "result")]
    return split[0], split[1]


def _error(wanted: Results, got: Results) -> float:
    """The worst output's max |a - b| / max |a|, a being the source's; infinite where a shape or a number is not one."""
    return max(_relative(wanted[name], got[name]) for name in wanted)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or not np.isfinite(b.astype(np.float64)).all():
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / (np.abs(a).max() or 1.0))
