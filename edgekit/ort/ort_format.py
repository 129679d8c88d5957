"""ORT format: the flatbuffer that small builds of onnxruntime load, and the operators that such a build must contain."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.ort.session import rewrite
from edgekit.ort.tools import ort_format_model


def to_ort_format(model: bytes, *, name: str = "the model") -> bytes:
    """Convert an ONNX file. Fully optimized, since a minimal build cannot optimize when it loads.

    Same model, same bytes: see `_canonical`.

    Raises:
        ArtifactError: onnxruntime refuses the model.
    """
    return _canonical(rewrite(model, optimize="all", ort_format=True, name=name))


def required_operators(models: dict[str, bytes]) -> str:
    """The text for onnxruntime's `build.py --include_ops_by_config`, with the types each operator is used with.

    Args:
        models: ORT-format files by name.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder, _root_logger_kept():
        paths = [Path(folder, str(i)) for i in range(len(models))]
        for path, data in zip(paths, models.values(), strict=True):
            path.write_bytes(data)
        config = Path(folder, "config")
        ort_format_model().create_config_from_models(paths, config, enable_type_reduction=True)
        lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    return "\n".join(["# Operators and types in " + ", ".join(models), *lines, ""])


def _canonical(data: bytes) -> bytes:
    """The same ORT-format model with its kernel table written in a fixed order.

    onnxruntime writes that table, at the front of the file, in the order of a hash map that is seeded anew in each process:
    two conversions of one model differ in bytes. A flatbuffer is built from its end to its front and offsets count from the
    end, so everything behind the table is taken over as it is, and the table is written again in front of it.
    """
    import flatbuffers
    from flatbuffers.number_types import SOffsetTFlags

    fbs = _schema()
    session = fbs.InferenceSession.GetRootAsInferenceSession(data, 0)
    model = session.Model()._tab
    resolver = session.KernelTypeStrResolver()
    if resolver is None:
        return data
    vtable = model.Pos - model.Get(SOffsetTFlags, model.Pos)
    start = min(model.Pos, vtable) if vtable < model.Pos else model.Pos
    tail = data[start:]

    builder = flatbuffers.Builder(len(tail) + 2**16)
    builder.minalign = 16
    builder.head = builder.head - len(tail)
    builder.Bytes[builder.head :] = tail
    model_offset = builder.Offset() - (model.Pos - start)
    resolver_offset = _write_resolver(builder, fbs, resolver)
    version = builder.CreateString(session.OrtVersion())
    fbs.InferenceSessionStart(builder)
    fbs.InferenceSessionAddOrtVersion(builder, version)
    fbs.InferenceSessionAddModel(builder, model_offset)
    fbs.InferenceSessionAddKernelTypeStrResolver(builder, resolver_offset)
    builder.Finish(fbs.InferenceSessionEnd(builder), file_identifier=b"ORTM")
    return bytes(builder.Output())


def _write_resolver(builder: Any, fbs: Any, resolver: Any) -> int:
    """The kernel table: operator → name of a type → the arguments of that type; every level sorted by its key."""
    operators = []
    for op in sorted(_each(resolver, "OpKernelTypeStrArgs"), key=lambda o: o.OpId()):
        types = []
        for entry in sorted(_each(op, "KernelTypeStrArgs"), key=lambda e: e.KernelTypeStr()):
            arguments = []
            for argument in _each(entry, "Args"):
                fbs.ArgTypeAndIndexStart(builder)
                fbs.ArgTypeAndIndexAddIndex(builder, argument.Index())
                fbs.ArgTypeAndIndexAddArgType(builder, argument.ArgType())
                arguments.append(fbs.ArgTypeAndIndexEnd(builder))
            listed = _vector(builder, arguments)
            key = builder.CreateString(entry.KernelTypeStr())
            fbs.KernelTypeStrArgsEntryStart(builder)
            fbs.KernelTypeStrArgsEntryAddKernelTypeStr(builder, key)
            fbs.KernelTypeStrArgsEntryAddArgs(builder, listed)
            types.append(fbs.KernelTypeStrArgsEntryEnd(builder))
        listed = _vector(builder, types)
        key = builder.CreateString(op.OpId())
        fbs.OpIdKernelTypeStrArgsEntryStart(builder)
        fbs.OpIdKernelTypeStrArgsEntryAddOpId(builder, key)
        fbs.OpIdKernelTypeStrArgsEntryAddKernelTypeStrArgs(builder, listed)
        operators.append(fbs.OpIdKernelTypeStrArgsEntryEnd(builder))
    listed = _vector(builder, operators)
    fbs.KernelTypeStrResolverStart(builder)
    fbs.KernelTypeStrResolverAddOpKernelTypeStrArgs(builder, listed)
    return fbs.KernelTypeStrResolverEnd(builder)


def _each(table: Any, field: str) -> Iterator[Any]:
    return (getattr(table, field)(i) for i in range(getattr(table, f"{field}Length")()))


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _schema() -> Any:
    """onnxruntime's generated flatbuffer classes and functions, in one namespace."""
    from types import SimpleNamespace

    with _root_logger_kept():
        ort_format_model()  # it puts ort_flatbuffers_py on sys.path

    from ort_flatbuffers_py.fbs import (
        ArgTypeAndIndex,
        InferenceSession,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        OpIdKernelTypeStrArgsEntry,
    )

    modules = (ArgTypeAndIndex, InferenceSession, KernelTypeStrArgsEntry, KernelTypeStrResolver, OpIdKernelTypeStrArgsEntry)
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """onnxruntime.tools calls logging.basicConfig when it is imported, and logs: neither may reach the user's terminal."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
