"""Targets: what a kind of device runs, as data. One folder each, with a `target.toml` (docs/targets.md)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import InputError, TargetError
from edgekit.quantize.precision import PRECISIONS
from edgekit.verify.gates import METRICS, Gates

FORMATS = ("tflite", "onnx", "ort")
LAYOUTS = ("keep", "nchw", "nhwc")

# A checkout has targets/ beside the package; a wheel carries the same folder inside it (setup.py).
_SHIPPED = (Path(__file__).parent / "_targets", Path(__file__).parent.parent / "targets")


@dataclass(frozen=True)
class TargetArtifacts:
    """One `[[artifacts]]` table: a format, and the precisions it is made in.

    Args:
        format: `tflite`, `onnx` or `ort`.
        precisions: What it can be made in.
        input_layout, output_layout: `nhwc` or `nchw` moves the channels of pictures there, `keep` leaves the source's order.
        delegates: What may take the model on the device, best first.
        forbidden_operators: Operators of the format that the device has no kernel for.
    """

    format: str
    precisions: tuple[str, ...]
    input_layout: str = "keep"
    output_layout: str = "keep"
    delegates: tuple[str, ...] = ()
    forbidden_operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unsupported:
    """One `[[unsupported]]` table: precisions that a format is not made in for this target, and why.

    Args:
        format: `tflite`, `onnx` or `ort`.
        precisions: What it cannot be, or would gain nothing from.
        reason: One sentence, for whoever asks for it.
    """

    format: str
    precisions: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.format} in {' and '.join(self.precisions)}: {self.reason}"


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Args:
        name: The folder's name.
        summary: One line.
        folder: Where its target.toml is.
        threads: How many the device's runtime should use.
        precisions: What is exported when `--precision` is not given.
        artifacts: The formats, each with what it can be.
        unsupported: What they cannot be, with reasons.
        gates: Limits of accuracy per precision.
        max_bytes: Size limit of one artifact, or None.
    """

    name: str
    summary: str
    folder: Path
    threads: int
    precisions: tuple[str, ...]
    artifacts: tuple[TargetArtifacts, ...]
    unsupported: tuple[Unsupported, ...] = ()
    gates: Gates = field(default_factory=Gates)
    max_bytes: int | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """Every format, in the order of target.toml."""
        return tuple(dict.fromkeys(a.format for a in self.artifacts))

    def why_not(self, precision: str, formats: Collection[str] | None = None) -> str:
        """What target.toml says on a precision that it has no artifact in (of these formats); empty where it says nothing."""
        return "; ".join(
            f"{table.format}: {table.reason}"
            for table in self.unsupported
            if precision in table.precisions and (formats is None or table.format in formats)
        )

    def problems(
        self, file: str, format: str, size: int, operators: Mapping[str, int], precision: str | None = None
    ) -> list[str]:
        """What the target has against one artifact; empty where nothing. A `precision` that edgekit does not know is let pass."""
        if format not in self.formats:
            return [f"{self.name} takes {', '.join(self.formats)}, {file} is {format}: export it"]
        found = []
        if self.max_bytes is not None and size > self.max_bytes:
            found.append(f"{file} has {size:,} bytes, {self.name} takes {self.max_bytes:,}")
        forbidden = {op for a in self.artifacts if a.format == format for op in a.forbidden_operators}
        found += [
            f"{file} uses {op} {operators[op]} times, {self.name} has no kernel for it"
            for op in sorted(forbidden & set(operators))
        ]
        made = {known for a in self.artifacts if a.format == format for known in a.precisions}
        if precision in PRECISIONS and precision not in made:
            reason = self.why_not(precision, (format,)) or f"{format} is made in {', '.join(sorted(made, key=PRECISIONS.index))}"
            found.append(f"{file} is {precision}, which {self.name} does not take ({reason})")
        return found

    def to_json(self) -> dict[str, Any]:
        """What `edgekit targets --json` lists."""
        return {
            "name": self.name,
            "summary": self.summary,
            "threads": self.threads,
            "precisions": list(self.precisions),
            "artifacts": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in vars(a).items()}
                for a in self.artifacts
            ],
            "unsupported": [{**vars(table), "precisions": list(table.precisions)} for table in self.unsupported],
            "gates": self.gates.to_json(),
            "limits": {"max_bytes": self.max_bytes},
        }


def load_target(name_or_folder: str | os.PathLike[str]) -> Target:
    """The target of that name, or the one in a folder.

    Raises:
        TargetError: There is no such target, or its target.toml is wrong; names the key and the file.
    """
    known = _shipped()
    name = os.fspath(name_or_folder)
    if name in known:
        return _read(known[name] / "target.toml")
    folder = Path(name_or_folder)
    if (folder / "target.toml").is_file():
        return _read(folder / "target.toml")
    what = f"the folder {name} has no target.toml" if folder.is_dir() else f"there is no target {name!r}"
    raise TargetError(what, where="--target", fix="use one of " + ", ".join(known) + ", or a folder with a target.toml")


def list_targets() -> list[Target]:
    """The targets that edgekit ships, by name."""
    return [_read(folder / "target.toml") for folder in _shipped().values()]


def _shipped() -> dict[str, Path]:
    root = next((folder for folder in _SHIPPED if folder.is_dir()), None)
    if root is None:
        raise TargetError(
            "edgekit was installed without its targets", where=str(_SHIPPED[0]), fix="install it again from its wheel"
        )
    return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "target.toml").is_file()}


def _read(path: Path) -> Target:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"target.toml cannot be read: {error}", where=str(path)) from error
    top = _Table(document, "", path, ("summary", "threads", "precisions", "artifacts", "unsupported", "gates", "limits"))
    artifacts = tuple(_artifacts(table, path) for table in top.take("artifacts", list))
    if not artifacts:
        raise TargetError("a target needs at least one [[artifacts]] table", where=str(path))
    unsupported = tuple(_unsupported(table, artifacts, path) for table in top.take("unsupported", list, []))
    limits = _Table(top.take("limits", dict, {}), "limits.", path, ("max_bytes",))
    return Target(
        name=path.parent.resolve().name,
        summary=top.take("summary", str),
        folder=path.parent,
        threads=top.take("threads", int, 1, least=1),
        precisions=top.names("precisions", among=PRECISIONS, required=True),
        artifacts=artifacts,
        unsupported=unsupported,
        gates=_gates(top.take("gates", dict, {}), path),
        max_bytes=limits.take("max_bytes", int, None, least=1),
    )


def _artifacts(document: Any, path: Path) -> TargetArtifacts:
    keys = ("format", "precisions", "input_layout", "output_layout", "delegates", "forbidden_operators")
    table = _Table(document, "artifacts.", path, keys)
    return TargetArtifacts(
        format=table.take("format", str, among=FORMATS),
        precisions=table.names("precisions", among=PRECISIONS, required=True),
        input_layout=table.take("input_layout", str, "keep", among=LAYOUTS),
        output_layout=table.take("output_layout", str, "keep", among=LAYOUTS),
        delegates=table.names("delegates"),
        forbidden_operators=table.names("forbidden_operators"),
    )


def _unsupported(document: Any, artifacts: Sequence[TargetArtifacts], path: Path) -> Unsupported:
    table = _Table(document, "unsupported.", path, ("format", "precisions", "reason"))
    found = Unsupported(
        format=table.take("format", str, among=FORMATS),
        precisions=table.names("precisions", among=PRECISIONS, required=True),
        reason=table.take("reason", str),
    )
    for artifact in artifacts:
        both = [p for p in found.precisions if artifact.format == found.format and p in artifact.precisions]
        if both:
            what = f"{found.format} in {both[0]} is listed both in [[artifacts]] and in [[unsupported]]"
            raise TargetError(what, where=str(path), fix="take it out of one of them")
    return found


def _gates(document: dict[str, Any], path: Path) -> Gates:
    tables = _Table(document, "gates.", path, PRECISIONS)
    values: dict[str, dict[str, float]] = {}
    for precision in document:
        table = _Table(tables.take(precision, dict), f"gates.{precision}.", path, tuple(METRICS))
        values[precision] = {metric: table.take(metric, float) for metric in table.document}
    try:
        return Gates.from_json(values)
    except InputError as error:
        raise TargetError(error.what, where=str(path)) from error


class _Table:
    """A TOML table that is read key by key, each mistake told with its key and file."""

    def __init__(self, document: Any, prefix: str, path: Path, keys: tuple[str, ...]) -> None:
        self.document, self._prefix, self._path = document, prefix, path
        if not isinstance(document, dict):
            raise TargetError(f"{prefix.rstrip('.')} must be a table", where=str(path))
        for key in document:
            if key not in keys:
                raise TargetError(f"unknown key {prefix}{key}", where=str(path), fix="the keys here are " + ", ".join(keys))

    def take(
        self, key: str, kind: type, default: Any = ..., *, among: tuple[str, ...] | None = None, least: int | None = None
    ) -> Any:
        """The value of `key`, checked; `default` where it is absent."""
        if key not in self.document:
            if default is ...:
                raise TargetError(f"{self._prefix}{key} is missing", where=str(self._path))
            return default
        value: Any = self.document[key]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TargetError(f"{self._prefix}{key} must be a {_KINDS[kind]}, not {value!r}", where=str(self._path))
        if among and value not in among:
            raise TargetError(f"{self._prefix}{key} is {value!r}", where=str(self._path), fix="use one of " + ", ".join(among))
        if isinstance(value, int) and least is not None and value < least:
            raise TargetError(f"{self._prefix}{key} must be at least {least}, not {value}", where=str(self._path))
        return value

    def names(self, key: str, *, among: tuple[str, ...] | None = None, required: bool = False) -> tuple[str, ...]:
        """A list of different strings."""
        values = self.take(key, list) if required else self.take(key, list, [])
        for value in values:
            if type(value) is not str or (among and value not in among):
                allowed = " of " + ", ".join(among) if among else ""
                raise TargetError(f"{self._prefix}{key} must be a list{allowed}: {value!r} is not", where=str(self._path))
        if len(set(values)) != len(values) or (required and not values):
            raise TargetError(f"{self._prefix}{key} must be a list of one or more different names", where=str(self._path))
        return tuple(values)


_KINDS = {str: "text", int: "whole number", float: "number", dict: "table", list: "list"}
