"""The folder that an export writes and everything else reads: manifest, artifacts, golden vectors (docs/manifest.md)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import Artifact, Binding, Feeds, Results, TensorSpec
from edgekit.errors import EdgekitError, PackageError
from edgekit.preprocess import Preprocess
from edgekit.staging import staged, writing
from edgekit.verify.verdict import Verification

SCHEMA = 1
MANIFEST = "edgekit.json"
GOLDEN = "golden.npz"
RECIPE = "recipe.toml"
GOLDEN_SAMPLES = 8
GOLDEN_BYTES = 16 * 2**20


@dataclass(frozen=True)
class File:
    """One file of a package, by its name, with what its content must be."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class PackagedArtifact(File):
    """An artifact in a package: what `contract.Artifact` says of it, and what is in it.

    Args:
        operators: How often each operator of the format occurs, as written in the file.
    """

    format: str
    precision: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    operators: Mapping[str, int]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, artifact: Artifact, file: File, operators: Mapping[str, int]) -> PackagedArtifact:
        """`artifact` as it was written to `file`."""
        return cls(
            file.file,
            file.sha256,
            file.bytes,
            artifact.format,
            artifact.precision,
            artifact.inputs,
            artifact.outputs,
            dict(operators),
            artifact.notes,
        )


@dataclass(frozen=True)
class SourceRecord:
    """What the package was made of: `kind` is `keras`, `torch` or `onnx`, `name` the last part of what was given."""

    kind: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A verified package.

    Args:
        path: Its folder.
        name: The source's name and the target's, `mobilenet-android`.
        target: The target's name.
        threads: How many threads the target's runtime should use.
        delegates: Per format, what the target may give the model to.
        source: What it was made of.
        inputs, outputs: The source's, which every artifact's bindings refer to.
        preprocess: From a picture to an input, or None.
        classes: Names of the classes in the order of the output, or None.
        artifacts: The models.
        companions: Other files (an .ort model's required operators).
        golden: The golden vectors' file.
        verification: How the artifacts compared with the source when the package was made.
        notes: What a reader must know: precisions left out and why, detours that the conversion took.
        quantization: What was done to the graph for int8, what each step brought, and how a precision search went.
        versions: Of the tools that made it.
        measured: Times, dates and machines: what another run of the same export gives differently.
    """

    path: Path
    name: str
    target: str
    threads: int
    delegates: Mapping[str, tuple[str, ...]]
    source: SourceRecord
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None
    classes: tuple[str, ...] | None
    artifacts: tuple[PackagedArtifact, ...]
    companions: tuple[File, ...]
    golden: File
    verification: Verification
    quantization: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `unverified`: the worst of the artifacts'."""
        return self.verification.verdict

    def golden_vectors(self) -> tuple[tuple[Feeds, Results], ...]:
        """Inputs and the source's outputs, one pair per run, by the source's names.

        Raises:
            PackageError: The file is not what the manifest says.
        """
        data = _checked(self.path, self.golden)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            runs = 1 + max(int(key.split("/")[1]) for key in archive.files)
            return tuple(
                (
                    {spec.name: archive[f"inputs/{run}/{spec.name}"] for spec in self.inputs},
                    {spec.name: archive[f"outputs/{run}/{spec.name}"] for spec in self.outputs},
                )
                for run in range(runs)
            )

    def to_json(self) -> dict[str, Any]:
        """The manifest, as `edgekit/schema/edgekit-1.json` describes it."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "target": {
                "name": self.target,
                "threads": self.threads,
                "delegates": {format: list(delegates) for format, delegates in self.delegates.items()},
            },
            "source": dict(vars(self.source)),
            "contract": {
                "inputs": [_spec_to_json(spec) for spec in self.inputs],
                "outputs": [_spec_to_json(spec) for spec in self.outputs],
                "preprocess": None if self.preprocess is None else self.preprocess.to_json(),
                "classes": None if self.classes is None else list(self.classes),
            },
            "artifacts": [_artifact_to_json(artifact) for artifact in self.artifacts],
            "companions": [dict(vars(file)) for file in self.companions],
            "golden": dict(vars(self.golden)),
            "verification": self.verification.to_json(),
            **({} if self.quantization is None else {"quantization": dict(self.quantization)}),
            "notes": list(self.notes),
            "versions": dict(self.versions),
            "measured": dict(self.measured),
        }


def load_package(path: str | os.PathLike[str]) -> Package:
    """Read a package and check every file of it against the manifest.

    Raises:
        PackageError: The folder is no package, was written by a newer edgekit, lacks a file, or a file is not what the manifest
            says.
    """
    folder = Path(path)
    package = _read_manifest(folder)
    for file in (*package.artifacts, *package.companions, package.golden):
        _check(folder, file)
    return package


class Draft:
    """A package while it is being written: files first, the manifest last."""

    def __init__(self, stage: Path) -> None:
        self._stage = stage

    def add_golden(self, vectors: Sequence[tuple[Feeds, Results]]) -> File:
        """Write the golden vectors: a zip of .npy members without times and without compression, so that the bytes depend on
        the numbers alone."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for run, (feeds, results) in enumerate(vectors):
                for side, arrays in (("inputs", feeds), ("outputs", results)):
                    for name, array in arrays.items():
                        member = io.BytesIO()
                        np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
                        info = zipfile.ZipInfo(f"{side}/{run}/{name}.npy", (1980, 1, 1, 0, 0, 0))
                        archive.writestr(info, member.getvalue())
        return self.add(GOLDEN, buffer.getvalue())

    def add(self, name: str, data: bytes) -> File:
        """Write any file."""
        path = self.path(name)
        if path.exists():
            raise PackageError(f"two files of the package are called {name}", fix="report this with the command that you ran")
        with writing(path):
            path.write_bytes(data)
        return File(name, hashlib.sha256(data).hexdigest(), len(data))

    def path(self, name: str) -> Path:
        """Where a file of that name is while the package is being written."""
        return self._stage / _plain_name(name)

    def finish(self, package: Package) -> None:
        """Write the manifest."""
        text = json.dumps(package.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
        # A shape is read on one line. No string of JSON holds a line break, so this touches none.
        flat = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", text)
        self.add(MANIFEST, (flat + "\n").encode())


@contextmanager
def drafted(folder: str | os.PathLike[str], *, force: bool = False) -> Iterator[Draft]:
    """Write a package: it appears at `folder` when the block ends, or not at all (see `staging.staged`).

    A package that is there already is replaced; a folder that holds anything else than edgekit wrote is not.

    Args:
        folder: Where the package goes.
        force: Replace a package also where somebody added files to it or changed them.

    Raises:
        PackageError: The folder is not a package, holds files that edgekit did not write, or cannot be written.
    """
    with staged(Path(folder), replaceable=lambda old: _check_replaceable(old, force)) as stage:
        yield Draft(stage)


def golden_count(feeds: Feeds, results: Results, runs: int) -> int:
    """How many of `runs` runs go into golden.npz: GOLDEN_SAMPLES or fewer, so that it stays within GOLDEN_BYTES; at least one."""
    size = sum(array.nbytes for array in (*feeds.values(), *results.values()))
    return max(1, min(GOLDEN_SAMPLES, runs, GOLDEN_BYTES // max(1, size)))


def _check_replaceable(folder: Path, force: bool) -> None:
    if not folder.is_dir():
        raise PackageError(f"{folder.name} is a file", where=str(folder), fix="choose another folder with -o")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        package = _read_manifest(folder)
    except PackageError:
        raise PackageError(
            "the folder is not empty and not a package of edgekit", where=str(folder), fix="choose another folder with -o"
        ) from None
    files = (*package.artifacts, *package.companions, package.golden)
    extra = sorted(names - {MANIFEST} - {file.file for file in files})
    if extra and not force:
        raise PackageError(
            f"the package holds {extra[0]}, which edgekit did not write",
            where=str(folder),
            fix="move it away, or pass --force to lose it",
        )


def _read_manifest(folder: Path) -> Package:
    path = folder / MANIFEST
    if not path.is_file():
        raise PackageError(f"{folder} is not a package: it has no {MANIFEST}", fix="give the folder that edgekit export wrote")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"the manifest cannot be read: {error}", where=str(path), fix="export the model again") from error
    if schema != SCHEMA:
        fix = (
            "use the edgekit that wrote it or a newer one"
            if isinstance(schema, int) and schema > SCHEMA
            else "export the model again"
        )
        raise PackageError(f"the manifest has schema {schema!r}, this edgekit reads {SCHEMA}", where=str(path), fix=fix)
    try:
        return _from_json(folder, document)
    except PackageError as error:
        raise PackageError(error.what, where=str(path), fix=error.fix) from error
    except (KeyError, TypeError, ValueError, AttributeError, EdgekitError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise PackageError(f"the manifest is wrong: {what}", where=str(path), fix="export the model again") from error


def _from_json(folder: Path, document: Mapping[str, Any]) -> Package:
    contract, target = document["contract"], document["target"]
    preprocess, classes = contract["preprocess"], contract["classes"]
    return Package(
        path=folder,
        name=document["name"],
        target=target["name"],
        threads=target["threads"],
        delegates={format: tuple(delegates) for format, delegates in target["delegates"].items()},
        source=SourceRecord(**document["source"]),
        inputs=tuple(_spec_from_json(spec) for spec in contract["inputs"]),
        outputs=tuple(_spec_from_json(spec) for spec in contract["outputs"]),
        preprocess=None if preprocess is None else Preprocess.from_json(preprocess),
        classes=None if classes is None else tuple(classes),
        artifacts=tuple(_artifact_from_json(artifact) for artifact in document["artifacts"]),
        companions=tuple(_file_from_json(file) for file in document["companions"]),
        golden=_file_from_json(document["golden"]),
        verification=Verification.from_json(document["verification"]),
        quantization=document.get("quantization"),
        notes=tuple(document["notes"]),
        versions=document["versions"],
        measured=document["measured"],
    )


def _spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _spec_from_json(document: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(document["name"], tuple(document["shape"]), document["dtype"])


def _artifact_to_json(artifact: PackagedArtifact) -> dict[str, Any]:
    sides = {"inputs": artifact.inputs, "outputs": artifact.outputs}
    bindings = {side: [_binding_to_json(b) for b in bound] for side, bound in sides.items()}
    return {**vars(artifact), "operators": dict(artifact.operators), "notes": list(artifact.notes), **bindings}


def _artifact_from_json(document: Mapping[str, Any]) -> PackagedArtifact:
    sides = {side: tuple(_binding_from_json(b) for b in document[side]) for side in ("inputs", "outputs")}
    notes, file = tuple(document["notes"]), _plain_name(document["file"])
    return PackagedArtifact(**{**document, **sides, "notes": notes, "file": file})


def _binding_to_json(binding: Binding) -> dict[str, Any]:
    permutation = None if binding.permutation is None else list(binding.permutation)
    return {**vars(binding), "shape": list(binding.shape), "permutation": permutation}


def _binding_from_json(document: Mapping[str, Any]) -> Binding:
    permutation = document["permutation"]
    fixed = {"shape": tuple(document["shape"]), "permutation": None if permutation is None else tuple(permutation)}
    return Binding(**{**document, **fixed})


def _file_from_json(document: Mapping[str, Any]) -> File:
    file = File(**document)
    return replace(file, file=_plain_name(file.file))


def _plain_name(name: str) -> str:
    """A file of the package lies in its folder: a manifest from elsewhere must not reach outside of it."""
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\:\0"):
        raise PackageError(f"{name!r} is not a file name of a package")
    return name


def _checked(folder: Path, file: File) -> bytes:
    _check(folder, file)
    return (folder / file.file).read_bytes()


def _check(folder: Path, file: File) -> None:
    path = folder / file.file
    fix = "copy the package again, or export the model again"
    try:
        with open(path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(f"the package lacks {file.file}: {error.strerror}", where=str(folder), fix=fix) from error
    if digest != file.sha256:
        raise PackageError(f"{file.file} is not the file that was exported: its sha256 differs", where=str(path), fix=fix)
