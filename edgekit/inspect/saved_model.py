"""Reads a SavedModel folder: its protocol buffer field by field, without TensorFlow's message classes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from edgekit.contract import TensorSpec
from edgekit.inspect.inspection import Inspection, count_operators

# Field numbers of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and framework/{graph,function,node_def,types}.proto.
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    19: "float16",
}
_MESSAGE = 2


def read(path: Path) -> Inspection:
    """Inspect the serving signature, and the operators of the first graph and its functions; weights count as bytes of the
    variables' files."""
    saved = _fields((path / "saved_model.pb").read_bytes())
    meta = _fields(saved[2][0])
    graph = _fields(meta[2][0])
    nodes = list(graph[1])
    for library in graph[2]:
        nodes += [node for function in _fields(library)[1] for node in _fields(function)[3]]
    signatures = {_fields(entry)[1][0].decode(): _fields(_fields(entry)[2][0]) for entry in meta[5]}
    served = [name for name in signatures if not name.startswith("__")]
    served.sort(key=lambda name: name != "serving_default")
    signature: dict[int, list[bytes]] = signatures[served[0]] if served else {}
    sizes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    variables = sum(file.stat().st_size for file in (path / "variables").glob("variables.data*"))
    return Inspection(
        file=path.name,
        format="saved_model",
        bytes=sizes,
        inputs=_specs(signature.get(1, [])),
        outputs=_specs(signature.get(2, [])),
        operators=count_operators(_fields(node)[2][0].decode() for node in nodes),
        weights={},
        precision="unknown",
        notes=(f"variables: {variables:,} bytes", "signatures: " + (", ".join(sorted(signatures)) or "none")),
    )


def _specs(entries: list[bytes]) -> tuple[TensorSpec, ...]:
    return tuple(sorted((_spec(_fields(entry)) for entry in entries), key=lambda spec: spec.name))


def _spec(entry: dict[int, list[bytes]]) -> TensorSpec:
    info = _fields(entry[2][0])
    shape = _fields(info[3][0]) if info[3] else defaultdict(list)
    sizes = [_signed(_fields(dim)[1]) for dim in shape[2]]
    dtype = _DTYPES.get(_signed(info[2]), "unknown")
    return TensorSpec(entry[1][0].decode(), tuple("?" if size < 0 else size for size in sizes), dtype)


def _fields(message: bytes) -> defaultdict[int, list[bytes]]:
    """The fields of one message by number; a varint's value is kept as its 8 bytes.

    Encoding: https://protobuf.dev/programming-guides/encoding (wire types 0 varint, 1 64-bit, 2 length-delimited, 5 32-bit).
    """
    found: defaultdict[int, list[bytes]] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            found[number].append((value & (2**64 - 1)).to_bytes(8, "little"))
            continue
        if wire == _MESSAGE:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("it ends in the middle of a field")
        found[number].append(message[at : at + size])
        at += size
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _signed(values: list[bytes]) -> int:
    return int.from_bytes(values[0], "little", signed=True) if values else 0
