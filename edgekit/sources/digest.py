"""The sha256 by which a package names the source that it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


def digest_path(path: Path) -> str:
    """Of a file's bytes; of a folder's files, sorted by their relative paths, each with its path and length."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return digest_files(path, sorted(p for p in path.rglob("*") if p.is_file()))


def digest_files(folder: Path, files: Iterable[Path]) -> str:
    """Of several files that are one model, such as an ONNX graph and its external data."""
    total = hashlib.sha256()
    for file in files:
        name = file.relative_to(folder) if file.is_relative_to(folder) else file
        total.update(f"{name.as_posix()}\0{digest_path(file)}\n".encode())
    return total.hexdigest()


def digest_state(code: bytes, state: Mapping[str, np.ndarray]) -> str:
    """Of a factory's source text and the weights that it returned: either one changing is another model."""
    total = hashlib.sha256(code)
    for name, array in sorted(state.items()):
        total.update(f"{name}\0{array.dtype}\0{array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
