"""What happens to one network of the zoo, each step in a process of its own: exported once, then converted and checked.

The export folder holds `model.onnx`, `values.npz` (feeds and the source framework's results) and `about.json`, beside the peers'
files, and until its own converter has read it, what the framework wrote for that: all of one and the same build.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tflite_facts
from own_process import told
from zoo_models import Entry
from zoo_results import Made

from edgekit.contract import Binding, Results
from edgekit.errors import EdgekitError

if TYPE_CHECKING:
    import onnx_ir


@dataclass(frozen=True)
class Checked:
    """What `check` found. `ours` has an error, and no outcome yet, where the file runs.

    Args:
        inputs, outputs: The places of those that the file holds channels-last.
    """

    ours: Made
    nodes: int
    weight_bytes: int
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


def export(entry: Entry, folder: Path) -> None:
    """Build the network, run it, export it, and write all of it into `folder`, in place of what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as scratch:
        partial = Path(scratch, folder.name)
        partial.mkdir()
        _export(entry, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _export(entry: Entry, folder: Path) -> None:
    import onnx_ir

    built = entry.build()
    results = built.source.run(built.feeds)
    strange = [name for name, array in results.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if strange:
        raise ValueError(f"the source gives numbers that are not finite in {strange[0]}")
    model = built.source.to_onnx()
    onnx_ir.save(model, folder / "model.onnx")
    arrays = {f"feed {name}": array for name, array in built.feeds.items()}
    arrays |= {f"result {name}": array for name, array in results.items()}
    np.savez(folder / "values.npz", **arrays)
    about = {"nodes": sum(1 for _ in model.graph.all_nodes()), "notes": model.metadata_props.get("edgekit.notes", "")}
    if built.save:
        try:
            built.save(folder)
        except Exception as error:  # torch.export has no exception of its own for a module that it does not take
            about["no program"] = told(error)
    (folder / "about.json").write_text(json.dumps(about))


def program(folder: Path) -> Path | None:
    """What the framework wrote for its own converter, if it is there."""
    return next((folder / name for name in ("model.pt2", "model.keras") if (folder / name).exists()), None)


def no_program(folder: Path) -> str:
    """Why the framework did not write it, as far as is known."""
    about = folder / "about.json"
    return str(json.loads(about.read_text()).get("no program", "")) if about.exists() else ""


def check(folder: Path, output: Path) -> Checked:
    """Convert the exported graph as edgekit's targets do, to `output`, run it, and compare."""
    import onnx_ir

    from edgekit.hub import prepare
    from edgekit.litert import compile_hub
    from edgekit.runtimes import Runner

    feeds, wanted = values(folder)
    nodes = json.loads((folder / "about.json").read_text())["nodes"]
    weight_bytes = _constant_bytes(onnx_ir.load(folder / "model.onnx"))
    try:
        start = time.process_time()
        hub = prepare(onnx_ir.load(folder / "model.onnx"))
        compiled = compile_hub(hub, input_layout="nhwc", output_layout="nhwc", stored_integers=True)
        output.write_bytes(compiled.data)
        ours = Made(
            "", convert_s=time.process_time() - start, bytes=len(compiled.data), operators=sum(compiled.operators.values())
        )
        ours = replace(ours, transposes=compiled.operators.get("TRANSPOSE", 0))
        got = Runner(compiled.data, "tflite", compiled.inputs, compiled.outputs).run(feeds)
    except EdgekitError as error:
        return Checked(Made("refused", " · ".join(str(error).split("\n"))), nodes, weight_bytes)
    worst = max(tflite_facts.relative(wanted[name], got[name]) for name in wanted)
    inputs, outputs = _channels_last(compiled.inputs, feeds), _channels_last(compiled.outputs, wanted)
    return Checked(replace(ours, error=worst), nodes, weight_bytes, inputs, outputs)


def warm_up(folder: Path) -> None:
    """Compile a network, so that what is imported or set up at the first time does not count."""
    from edgekit import litert

    litert.compile(folder / "model.onnx")


def onnxruntime_error(folder: Path) -> float:
    """How far onnxruntime is from the source framework on the exported graph."""
    from edgekit.runtimes import open_session

    feeds, wanted = values(folder)
    session = open_session(folder / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()}), strict=True))
    return max(tflite_facts.relative(wanted[name], got[name]) for name in wanted)


def values(folder: Path) -> tuple[Results, Results]:
    """The feeds, and the source framework's results."""
    with np.load(folder / "values.npz") as stored:
        both = {key: stored[key] for key in stored.files}
    split = [{k.partition(" ")[2]: v for k, v in both.items() if k.startswith(f"{side} ")} for side in ("feed", "result")]
    return split[0], split[1]


def _channels_last(bindings: Sequence[Binding], arrays: Results) -> tuple[int, ...]:
    """The places, among the network's inputs or outputs, of those that the file holds as N…C."""
    held = {b.source for b in bindings if b.permutation == (0, *range(2, len(b.shape)), 1)}
    return tuple(place for place, name in enumerate(arrays) if name in held)


def _constant_bytes(model: onnx_ir.Model) -> int:
    """Of initializers and of Constant nodes."""
    held = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    nodes = [
        node.attributes["value"] for node in model.graph.all_nodes() if node.op_type == "Constant" and "value" in node.attributes
    ]
    return held + sum(attribute.as_tensor().nbytes for attribute in nodes)
