"""Reads PyTorch's archives as the zips that they are: `.pt2` (JSON), TorchScript (source text) and pickles (never loaded)."""

from __future__ import annotations

import json
import math
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSpec
from edgekit.errors import SourceError
from edgekit.inspect.inspection import Inspection, count_operators, count_weights, name_precision

# torch._export.serde.schema.ScalarType
_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
_SIZES = {
    "uint8": 1,
    "int8": 1,
    "bool": 1,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "float32": 4,
    "int64": 8,
    "float64": 8,
}
_STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
}


def read_exported(path: Path) -> Inspection:
    """Inspect an exported program: its graph is JSON."""
    with zipfile.ZipFile(path) as archive:
        graphs = [n for n in archive.namelist() if re.search(r"(^|/)(models/[^/]+|serialized_exported_program)\.json$", n)]
        if not graphs:
            raise SourceError("the archive holds no exported program", where=str(path), fix="save it with torch.export.save")
        program = json.loads(archive.read(graphs[0]))
        weights = [json.loads(archive.read(n))["config"] for n in archive.namelist() if n.endswith("_config.json")]
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    tensors = graph["tensor_values"]
    inputs = [s["user_input"]["arg"]["as_tensor"]["name"] for s in signature["input_specs"] if _is_tensor(s, "user_input")]
    outputs = [s["user_output"]["arg"]["as_tensor"]["name"] for s in signature["output_specs"] if _is_tensor(s, "user_output")]
    counted = count_weights(
        _weight(entry["tensor_meta"]) for config in weights for entry in config.values() if entry.get("tensor_meta")
    )
    return Inspection(
        file=path.name,
        format="pt2",
        bytes=path.stat().st_size,
        inputs=tuple(_spec(name, tensors[name]) for name in inputs),
        outputs=tuple(_spec(name, tensors[name]) for name in outputs),
        operators=count_operators(node["target"].removeprefix("torch.ops.") for node in graph["nodes"]),
        weights=counted,
        precision=name_precision(counted),
        notes=() if weights else ("an archive of torch before 2.8: its weights are a pickle, not counted",),
    )


def read_archive(path: Path) -> Inspection:
    """Inspect a TorchScript archive, or say what a pickle would load."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        code = [archive.read(n).decode() for n in names if re.search(r"(^|/)code/.*\.py$", n)]
        pickles = [archive.read(n) for n in names if re.search(r"(^|/)(data|constants)\.pkl$", n)]
        sizes = {
            n.rsplit("/", 1)[-1]: archive.getinfo(n).file_size for n in names if re.search(r"(^|/)(data|constants)/[^/]+$", n)
        }
    if not pickles:
        raise SourceError("the archive holds neither TorchScript nor a pickle of torch", where=str(path))
    dtypes, modules = _described(pickles)
    # A storage's dtype stands in the pickle, its size in the zip; where several dtypes occur, which is whose takes unpickling.
    dtype = dtypes[0] if len(set(dtypes)) == 1 else "mixed" if dtypes else "unknown"
    total = sum(sizes.values())
    weights = count_weights((dtype, size // _SIZES.get(dtype, 1), size) for size in sizes.values()) if total else {}
    notes = ["several dtypes: the numbers of weights are bytes"] if dtype == "mixed" else []
    if code:
        calls = (call for text in code for call in re.findall(r"\b(?:torch|ops)\.[\w.]+(?=\()", text))
        return Inspection(
            path.name, "torchscript", path.stat().st_size, (), (), count_operators(calls), weights, name_precision(weights),
            (*notes, "TorchScript names no shapes: give them with --input"),
        )  # fmt: skip
    foreign = sorted(
        m for m in modules if not m.startswith(("torch", "collections", "builtins", "__builtin__", "_codecs", "numpy"))
    )
    what = f"a pickled module that needs {', '.join(foreign)}" if foreign else "tensors without an architecture (a state_dict)"
    fix = "loading it would run code" if foreign else "give edgekit a factory: file.py:function"
    return Inspection(
        path.name, "pickle", path.stat().st_size, (), (), {}, weights, name_precision(weights), (*notes, f"{what}; {fix}")
    )


def _described(pickles: list[bytes]) -> tuple[list[str], set[str]]:
    """Dtypes of the storages and modules of the classes that pickles name: their opcodes are read, not executed."""
    dtypes, modules = [], set()
    for data in pickles:
        strings: list[str] = []
        for opcode, argument, _ in pickletools.genops(data):
            if isinstance(argument, str):
                strings.append(argument)
            if opcode.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                module, name = strings[-2], strings[-1]
            else:
                continue
            modules.add(module)
            if name in _STORAGES:
                dtypes.append(_STORAGES[name])
    return dtypes, modules


def _is_tensor(spec: dict[str, Any], key: str) -> bool:
    return "as_tensor" in spec.get(key, {}).get("arg", {})


def _spec(name: str, meta: dict[str, Any]) -> TensorSpec:
    shape = tuple(d["as_int"] if "as_int" in d else str(d.get("as_expr", {}).get("expr_str", "?")) for d in meta["sizes"])
    return TensorSpec(name, shape, _DTYPES.get(meta["dtype"], "unknown"))


def _weight(meta: dict[str, Any]) -> tuple[str, int, int]:
    dtype = _DTYPES.get(meta["dtype"], "unknown")
    elements = math.prod(d.get("as_int", 0) for d in meta["sizes"])
    return dtype, elements, elements * _SIZES.get(dtype, 1)
