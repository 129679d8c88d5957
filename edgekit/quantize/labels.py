"""The right answers beside the data: one class per sample."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgekit.errors import InputError
from edgekit.quantize.data import Calibration

_FORMS = "a .npy, .txt or .csv file with one whole number per sample, or the folder whose subfolders are the classes"
_FILE_COLUMNS = ("file", "filename", "image", "path")
_LABEL_COLUMNS = ("label", "class", "target", "y")


def load_labels(spec: str, data: Calibration) -> np.ndarray:
    """The class of each sample of `data`, in the order of its feeds.

    Args:
        spec: `.npy` (integers, one per sample of the whole set), `.txt` (one integer per line), `.csv` (a column `label`, or
            `file.csv:column`; where there is a column `file` it is matched with the names of pictures, otherwise rows are in
            the order of the samples), or a folder of pictures with one subfolder per class: the class is the subfolder's
            place in their sorted order, or its line in a `labels.txt` beside them.
        data: What the labels are for.

    Returns:
        An int64 array with one class per used sample.

    Raises:
        InputError: The labels cannot be read, are no integers, or do not fit the data.
    """
    path, column = _split_column(spec)
    if path.is_dir():
        return _from_folders(path, data)
    if not path.is_file():
        raise InputError("the labels do not exist", where=spec, fix=f"give {_FORMS}")
    if path.suffix == ".csv":
        return _from_table(path, column, data)
    readers: dict[str, Callable[[Path], np.ndarray]] = {".npy": _from_npy, ".txt": _from_text}
    if path.suffix not in readers:
        raise InputError("edgekit does not read labels of this kind", where=spec, fix=f"give {_FORMS}")
    return _of_samples(readers[path.suffix](path), data, spec)


def _split_column(spec: str) -> tuple[Path, str | None]:
    path, found, column = spec.rpartition(":")
    return (Path(path), column) if found and path.endswith(".csv") else (Path(spec), None)


def _from_folders(folder: Path, data: Calibration) -> np.ndarray:
    if not data.files:
        raise InputError("a folder labels pictures only", where=str(folder), fix="give a .npy, .txt or .csv file")
    listed = folder / "labels.txt"
    if listed.is_file():
        names = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    index = {name: i for i, name in enumerate(names)}
    classes = [Path(file).parts[0] for file in data.files]
    unknown = [f for f, c in zip(data.files, classes, strict=True) if c not in index or len(Path(f).parts) < 2]
    if unknown:
        where = f"{folder}: {unknown[0]}"
        raise InputError("a picture is in no class's subfolder", where=where, fix="put each picture into its class's folder")
    return np.array([index[c] for c in classes], dtype=np.int64)


def _from_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # OSError, ValueError and EOFError, by what is wrong with the file
        raise InputError(f"the labels cannot be read: {error}", where=str(path), fix="save integers with numpy.save") from None


def _from_text(path: Path) -> np.ndarray:
    return _integers([line for line in _text(path).splitlines() if line.strip()], str(path))


def _from_table(path: Path, column: str | None, data: Calibration) -> np.ndarray:
    rows = [row for row in csv.reader(_text(path).splitlines()) if row]
    if not rows:
        raise InputError("the table is empty", where=str(path), fix=f"give {_FORMS}")
    header = [name.strip() for name in rows[0]]
    if column is None and len(header) == 1 and header[0].lstrip("-").isdigit():
        return _of_samples(_integers([row[0] for row in rows], str(path)), data, str(path))
    wanted = (column,) if column is not None else _LABEL_COLUMNS
    labels_at = _column(header, wanted)
    if labels_at is None:
        listed = ", ".join(header)
        raise InputError(f"no column {wanted[0]!r}", where=f"{path} has {listed}", fix="name it: labels.csv:COLUMN")
    body = rows[1:]
    short = [i for i, row in enumerate(body) if len(row) != len(header)]
    if short:
        fix = f"every line must have {len(header)} values"
        raise InputError("a line has the wrong number of values", where=f"{path}, line {short[0] + 2}", fix=fix)
    classes = _integers([row[labels_at] for row in body], str(path))
    files_at = _column(header, _FILE_COLUMNS)
    if files_at is None or not data.files:
        return _of_samples(classes, data, str(path))
    by_file = {row[files_at].strip(): label for row, label in zip(body, classes, strict=True)}
    missing = [file for file in data.files if file not in by_file]
    if missing:
        raise InputError(f"no label for {missing[0]!r}", where=str(path), fix="name files relative to the folder of pictures")
    return np.array([by_file[file] for file in data.files], dtype=np.int64)


def _column(header: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(header) if name.lower() in [w.lower() for w in wanted]), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the labels cannot be read: {error}", where=str(path), fix="save them as UTF-8 text") from None


def _integers(texts: Sequence[str], where: str) -> np.ndarray:
    try:
        return np.array([int(text) for text in texts], dtype=np.int64)
    except ValueError as error:
        raise InputError(f"a label is not a whole number: {error}", where=where, fix="give class indices, not names") from None


def _of_samples(labels: np.ndarray, data: Calibration, where: str) -> np.ndarray:
    """The labels of the used samples, from those of the whole set (or of a function's samples, which have no known total)."""
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.reshape(-1)
    if labels.dtype.kind not in "iub" or labels.ndim != 1:
        have = f"{'x'.join(map(str, labels.shape))}:{labels.dtype}"
        raise InputError(f"labels must be one integer per sample, not {have}", where=where, fix="for one-hot labels: argmax(1)")
    fits = len(labels) >= data.total if data.kind == "function" else len(labels) == data.total
    if not fits:
        raise InputError(f"{len(labels)} labels for {data.total} samples", where=where, fix="give one label per sample, in order")
    return labels[list(data.indices)].astype(np.int64)
