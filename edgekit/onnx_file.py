"""Reading ONNX files without holding their weights.

A plain .onnx file keeps its weights inside the protobuf, and parsing it copies them. Here the wire format is scanned first: of
every large tensor only the place in the file is kept, the rest (a few kilobytes) is parsed, and the tensor becomes a view of the
memory-mapped file. External data are mapped in the same way. So a weight takes memory when it is read, and never twice.

Field numbers are those of onnx.proto3, the wire format is https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import SourceError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

BIG = 1 << 16
"""Bytes from which on a tensor stays in the file."""

Mapped = mmap.mmap | bytes


@dataclass(frozen=True)
class OnnxFile:
    """A model and the files beside it that hold its external data, sorted."""

    model: ir.Model
    external: tuple[Path, ...]


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """Read an ONNX file; tensors of 64 kB and more, and external data, are views of the mapped files.

    Raises:
        SourceError: There is no such file, it is damaged, or its external data are missing, too short or elsewhere.
    """
    import onnx_ir as ir

    path = Path(path)
    mapped = _map(path)
    try:
        proto = parse_onnx(_without_weights(mapped, path.name))
        _check_tensors(proto, may_be_external=True)
        model = ir.serde.deserialize_model(proto)
    except SourceError as error:
        raise SourceError(error.what, where=str(path), fix=error.fix) from error
    except Exception as error:  # onnx_ir raises many types for a message that contradicts itself
        raise _damaged(error, str(path)) from error
    external = _Files(path, {path: mapped})
    for graph in _graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = external.tensor(value.const_value)
        for node in graph:
            for attribute in list(node.attributes.values()):
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, external.tensor(attribute.value))
    _check_text(model, str(path))
    require_outputs(model, str(path))
    return OnnxFile(model, tuple(sorted(set(external.mapped) - {path})))


def parse_onnx(data: bytes) -> onnx.ModelProto:
    """Parse the bytes of an ONNX file.

    Raises:
        SourceError: They are not those of a ModelProto.
    """
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # the protobuf implementations share no exception
        raise _damaged(error, "a model in memory") from error


def convert_proto(proto: onnx.ModelProto) -> ir.Model:
    """A parsed model, whose weights are shared with `proto`.

    Raises:
        SourceError: It contradicts itself.
    """
    import onnx_ir as ir

    _check_tensors(proto, may_be_external=False)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir raises many types for a message that contradicts itself
        raise _damaged(error, "a model in memory") from error
    _check_text(model, "a model in memory")
    require_outputs(model, "a model in memory")
    return model


def _check_text(model: ir.Model, where: str) -> None:
    """Names are text; protobuf gives bytes where they are not UTF-8."""
    for graph in _graphs(model):
        names = [value.name for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())]
        for node in graph:
            names += [node.name, node.op_type, node.domain, *node.attributes]
            names += [value.name for value in node.outputs]
        for name in names:
            if not isinstance(name, str | None):
                raise SourceError(f"the name {name!r} is not UTF-8", where=where, fix="copy the file or export it again")


def _check_tensors(proto: onnx.ModelProto, may_be_external: bool) -> None:
    """Every stored tensor has a type, a shape, and as many numbers as these ask for."""
    import onnx_ir as ir

    tensors = itertools.chain(_stored(proto.graph), *(_stored_in(function.node) for function in proto.functions))
    for tensor in tensors:
        where, dims = f"tensor {tensor.name!r}", tensor.dims
        dtype = ir.DataType(tensor.data_type) if tensor.data_type in _TYPES else ir.DataType.UNDEFINED
        if dtype == ir.DataType.UNDEFINED or any(dim < 0 for dim in dims):
            what = f"a stored tensor has the type {tensor.data_type} and the shape {list(dims)}"
            raise SourceError(what, where=where, fix="copy the file or export it again")
        if tensor.data_location == tensor.EXTERNAL:
            if not may_be_external:
                what = f"the weights of {tensor.name!r} are in another file, which a model in memory does not have"
                raise SourceError(what, where=where, fix="give the path of the model, or load it with its external data")
            continue
        elements = math.prod(dims)
        if dtype == ir.DataType.STRING:
            have, wanted = len(tensor.string_data), elements
        elif tensor.HasField("raw_data"):
            have, wanted = len(tensor.raw_data), math.ceil(elements * dtype.bitwidth / 8)
            if dtype == ir.DataType.BOOL and tensor.raw_data.translate(None, b"\0\1"):
                raise SourceError(
                    f"{tensor.name!r} is BOOL and holds more than 0 and 1", where=where, fix="export the model again"
                )
        else:
            name, of_one = _TYPES[tensor.data_type]
            have, wanted = len(getattr(tensor, name)), math.ceil(elements * of_one)
        if have != wanted:
            what = f"{tensor.name!r} has the shape {list(dims)} of {dtype.name} and {have} stored items, not {wanted}"
            raise SourceError(what, where=where, fix="copy the file or export it again")


def _stored(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph, of its nodes' attributes, and of the graphs in these."""
    yield from graph.initializer
    yield from _stored_in(graph.node)


def _stored_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == attribute.TENSOR:
                yield attribute.t
            elif attribute.type == attribute.TENSORS:
                yield from attribute.tensors
            elif attribute.type == attribute.GRAPH:
                yield from _stored(attribute.g)
            elif attribute.type == attribute.GRAPHS:
                for inner in attribute.graphs:
                    yield from _stored(inner)


_TYPES: dict[int, tuple[str, float]] = {
    1: ("float_data", 1), 2: ("int32_data", 1), 3: ("int32_data", 1), 4: ("int32_data", 1), 5: ("int32_data", 1),
    6: ("int32_data", 1), 7: ("int64_data", 1), 8: ("string_data", 1), 9: ("int32_data", 1), 10: ("int32_data", 1),
    11: ("double_data", 1), 12: ("uint64_data", 1), 13: ("uint64_data", 1), 14: ("float_data", 2), 15: ("double_data", 2),
    16: ("int32_data", 1), 17: ("int32_data", 1), 18: ("int32_data", 1), 19: ("int32_data", 1), 20: ("int32_data", 1),
    21: ("int32_data", 1 / 2), 22: ("int32_data", 1 / 2), 23: ("int32_data", 1 / 2), 24: ("int32_data", 1),
    25: ("int32_data", 1 / 4), 26: ("int32_data", 1 / 4),
}  # fmt: skip
"""TensorProto.DataType → the field that holds its numbers where they are not raw, and how many items one number takes."""


def require_outputs(model: ir.Model, where: str) -> None:
    """Raise SourceError for a model that computes nothing: what is left of most files that are no ONNX models."""
    if not model.graph.outputs:
        what = "no outputs: it computes nothing" if len(model.graph) else "no graph"
        raise SourceError(f"this ONNX model has {what}", where=where, fix="copy the file or export it again")


def _damaged(error: Exception, where: str) -> SourceError:
    first = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
    return SourceError(f"this is no valid ONNX model ({reason})", where=where, fix="copy the file or export it again")


def _map(path: Path) -> Mapped:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {path.name!r}", where=str(path), fix="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"the file cannot be read: {reason}", where=str(path), fix="check the path and its permissions"
        ) from error


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    for outer in (model.graph, *(function.graph for function in model.functions.values())):
        yield outer
        yield from outer.subgraphs()


# Tensors as views of files


@dataclass
class _Files:
    """The files that the tensors of one model lie in, each mapped once."""

    path: Path
    mapped: dict[Path, Mapped] = field(default_factory=dict)

    def tensor(self, stored: ir.ExternalTensor) -> ir.TensorProtocol:
        """A view of the file that the tensor lies in.

        Raises:
            SourceError: The file is missing, lies outside of the model's folder, or is too short.
        """
        import ml_dtypes  # noqa: F401  (registers bfloat16 and the 8-bit floats)
        import numpy as np
        import onnx_ir as ir

        where = f"tensor {stored.name!r}"
        dims = [d for d in stored.shape if isinstance(d, int) and d >= 0]
        if len(dims) != len(stored.shape) or stored.dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
            raise SourceError(f"the stored tensor has the shape {stored.shape}", where=where, fix="export the model again")
        size = math.ceil(math.prod(dims) * stored.dtype.bitwidth / 8)
        file = self.path.parent / str(stored.location)
        mapped = self.mapped.get(file)
        if mapped is None:
            self._check_place(file, stored)
            mapped = self.mapped[file] = _map(file)
        start, length = stored.offset or 0, size if stored.length is None else stored.length
        if length != size:
            what = f"the weights of {stored.name!r} take {size} bytes, and {length} are stored"
            raise SourceError(what, where=str(file), fix="copy the file or export it again")
        if start < 0 or start + size > len(mapped):
            what = f"{file.name!r} ends before the weights of {stored.name!r}"
            raise SourceError(what, where=str(file), fix="copy the file or export it again")
        if stored.dtype.bitwidth < 8:
            data = np.frombuffer(mapped, np.uint8, size, start)
            return ir.PackedTensor(data, stored.dtype, shape=ir.Shape(dims), name=stored.name)
        array = np.frombuffer(mapped, stored.dtype.numpy().newbyteorder("<"), math.prod(dims), start)
        return ir.Tensor(array.reshape(dims), stored.dtype, name=stored.name)

    def _check_place(self, file: Path, stored: ir.ExternalTensor) -> None:
        """The file of a tensor must lie in the folder of the model: a model does not read what is not its own."""
        location = str(stored.location)
        folders = {self.path.parent.resolve(), self.path.resolve().parent}  # a cache of linked files keeps both together
        if not location or "\0" in location or not any(file.resolve().is_relative_to(folder) for folder in folders):
            what = f"the weights of {stored.name!r} are in {location!r}, outside of the model's folder"
            raise SourceError(what, where=str(self.path), fix="put the file beside the model and export it again")
        if not file.is_file():
            what = f"the weights of {stored.name!r} are in {location!r}, which is missing"
            raise SourceError(what, where=str(self.path), fix=f"put {file.name} beside {self.path.name}")


# The wire format

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TENSOR, PAYLOAD = "TensorProto", "payload"
CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: TENSOR},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: TENSOR, 6: "GraphProto", 11: "GraphProto"},
}
"""Where large tensors may lie: message → field number → message."""
DATA_TYPE, FLOAT_DATA, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 2, 4, 9, 13, 14
FLOAT = 1


class _Unusual(Exception):
    """The file is damaged, or holds what only the whole parser should judge."""


def _without_weights(data: Mapped, name: str) -> bytes:
    """The ModelProto with its large tensors as external data of the file `name`, which is this one; small files as they are."""
    if len(data) < BIG:
        return bytes(data)
    try:
        return _strip(data, 0, len(data), "ModelProto", name)
    except _Unusual:
        return bytes(data)


def _strip(data: Mapped, start: int, end: int, message: str, name: str) -> bytes:
    if message == TENSOR:
        return _strip_tensor(data, start, end, name)
    children = CHILDREN[message]
    pieces: list[bytes] = []
    kept = start
    for number, wire, at, begin, stop in _fields(data, start, end):
        if wire == BYTES and stop - begin >= BIG and number in children:
            inner = _strip(data, begin, stop, children[number], name)
            pieces += [data[kept:at], _field(number, inner)]
            kept = stop
    pieces.append(data[kept:end])
    return b"".join(pieces)


def _strip_tensor(data: Mapped, start: int, end: int, name: str) -> bytes:
    """A TensorProto whose data are external; as it is where its data are spread over fields or not little-endian as they lie."""
    fields = list(_fields(data, start, end))
    payload = [f for f in fields if f[0] in (RAW_DATA, FLOAT_DATA) and f[1] == BYTES]
    types = [_varint(data, begin, stop)[0] for number, wire, _, begin, stop in fields if number == DATA_TYPE and wire == VARINT]
    elsewhere = any(number in (EXTERNAL_DATA, DATA_LOCATION) for number, *_ in fields)
    if len(payload) != 1 or len(types) != 1 or elsewhere or (payload[0][0] == FLOAT_DATA and types[0] != FLOAT):
        return data[start:end]
    _, _, at, begin, stop = payload[0]
    entries = {"location": name, "offset": str(begin), "length": str(stop - begin)}
    external = b"".join(_field(EXTERNAL_DATA, _field(1, k.encode()) + _field(2, v.encode())) for k, v in entries.items())
    return data[start:at] + data[stop:end] + external + _encode(DATA_LOCATION << 3 | VARINT) + _encode(1)


def _fields(data: Mapped, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, where its key begins, where its value begins, where it ends) of each field of a message."""
    at = start
    while at < end:
        key, begin = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            stop = _varint(data, begin, end)[1]
        elif wire == BYTES:
            length, begin = _varint(data, begin, end)
            stop = begin + length
        elif wire in (FIXED64, FIXED32):
            stop = begin + (8 if wire == FIXED64 else 4)
        else:
            raise _Unusual
        if stop > end or number == 0:
            raise _Unusual
        yield number, wire, at, begin, stop
        at = stop


def _varint(data: Mapped, at: int, end: int) -> tuple[int, int]:
    """A variable-length integer and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Unusual


def _field(number: int, value: bytes) -> bytes:
    return _encode(number << 3 | BYTES) + _encode(len(value)) + value


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
