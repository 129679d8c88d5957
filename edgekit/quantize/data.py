"""Real data for calibration and verification: pictures, arrays or a function become feeds of the model.

One rule turns a sample into a feed, wherever the sample comes from: a sample has the model's shape, or that shape without
its first axis. In the second case samples are stacked along the first axis until it has the size that the model takes (one
where the size is dynamic).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgekit.contract import Feeds, TensorSpec, format_shape
from edgekit.errors import InputError, QuantizeError
from edgekit.preprocess import Preprocess

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Feeds are kept in memory up to this many bytes in total; larger sets are read again each time they are run through.
KEEP_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Calibration:
    """Feeds made of real data.

    Args:
        feeds: One mapping per run of the model, keyed by input name, shaped and typed exactly as the model takes them.
        kind: `images`, `npy`, `npz` or `function`.
        origin: Where they come from, as the user wrote it.
        sha256: Of the bytes of all feeds with their names, shapes and dtypes: what the model really saw.
        indices: Position in the whole set of each sample used, in the order of the feeds.
        total: Samples in the whole set.
        files: For `images`: the path of each sample used, relative to the folder.
    """

    feeds: Sequence[Feeds]
    kind: str
    origin: str
    sha256: str
    indices: tuple[int, ...] = ()
    total: int = 0
    files: tuple[str, ...] = ()

    def subset(self, limit: int) -> Sequence[Feeds]:
        """At most `limit` of the feeds, evenly spaced; those that are not in memory are read when they are asked for."""
        indices = evenly_spaced(len(self.feeds), limit)
        if isinstance(self.feeds, list | tuple):
            return [self.feeds[i] for i in indices]
        return Reread(lambda i: self.feeds[indices[i]], len(indices))


def no_calibration(precision: str) -> QuantizeError:
    """For a precision that needs data and was given none."""
    return QuantizeError(
        f"{precision} needs calibration data: the ranges of the activations are measured on real inputs",
        where=f"precision {precision}",
        fix="pass --calibration with a folder of pictures, a .npy, a .npz or file.py:function, or ask for int8-dynamic",
    )


def load_data(
    spec: str, inputs: Sequence[TensorSpec], preprocess: Preprocess | None = None, *, limit: int | None = None
) -> Calibration:
    """Read data for a model.

    Args:
        spec: A folder of pictures (searched recursively, sorted by path), a `.npy` file (first axis: samples; models of one
            input), a `.npz` file (one array per input, keyed by input name), or `file.py:function` (called without
            arguments; gives samples as arrays, tuples in the order of the inputs, or dicts).
        inputs: The model's inputs.
        preprocess: Applied to pictures and to uint8 arrays of pictures; other arrays are taken to be what the model takes.
        limit: Use at most this many samples, evenly spaced over the set (of a function: its first ones).

    Raises:
        InputError: The data cannot be read or do not fit the model; names the file, what is expected and what came.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the number of samples must be positive, not {limit}", fix="leave the limit out to use all")
    samples = _open(spec, inputs, preprocess, limit)
    batch = _batch_size(samples, inputs, spec)
    indices = evenly_spaced(samples.total, max(batch, limit - limit % batch) if limit else samples.total)
    indices = indices[: len(indices) - len(indices) % batch]
    if not indices:
        raise InputError(
            f"the model takes batches of {batch}, the data are {samples.total} samples",
            where=spec,
            fix="give more data, or export with a batch of 1",
        )

    def feed(i: int) -> Feeds:
        return _feed([(j, samples.read(j)) for j in indices[i * batch : (i + 1) * batch]], inputs, samples.name)

    feeds, digest = _kept(feed, len(indices) // batch)
    files = tuple(samples.name(i) for i in indices) if samples.kind == "images" else ()
    return Calibration(feeds, samples.kind, spec, digest, indices, samples.total, files)


def evenly_spaced(total: int, count: int) -> tuple[int, ...]:
    """`count` indices spread over `range(total)`, the first included; all of them where there are no more."""
    return tuple(range(total)) if count >= total else tuple(i * total // count for i in range(count))


@dataclass(frozen=True)
class _Samples:
    """A set that can be read sample by sample; `name(i)` says where sample i is, for errors."""

    kind: str
    total: int
    read: Callable[[int], dict[str, np.ndarray]]
    name: Callable[[int], str]


def _open(spec: str, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, limit: int | None) -> _Samples:
    from edgekit.quantize.function import split_function_spec

    path = Path(spec)
    if path.is_dir():
        return _images(path, _only(inputs, spec, "a folder of pictures"), preprocess)
    if split_function_spec(spec):
        return _function(spec, inputs, preprocess, limit)
    if not path.exists():
        raise InputError("the data do not exist", where=spec, fix=f"give {_KINDS}")
    if path.suffix == ".npy":
        only = _only(inputs, spec, "a .npy file")
        return _arrays("npy", {only.name: _load(path)}, spec, preprocess)
    if path.suffix == ".npz":
        return _arrays("npz", _by_input(_load(path), inputs, spec), spec, preprocess)
    raise InputError("edgekit does not read this kind of data", where=spec, fix=f"give {_KINDS}")


_KINDS = "a folder of pictures, a .npy, a .npz (one array per input) or file.py:function"


def _only(inputs: Sequence[TensorSpec], spec: str, what: str) -> TensorSpec:
    if len(inputs) == 1:
        return inputs[0]
    names = ", ".join(i.name for i in inputs)
    raise InputError(
        f"{what} feeds models of one input, this one has {len(inputs)}",
        where=spec,
        fix=f"give a .npz with the arrays {names}, or file.py:function",
    )


def _images(folder: Path, spec: TensorSpec, preprocess: Preprocess | None) -> _Samples:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        suffixes = " ".join(IMAGE_SUFFIXES)
        raise InputError("the folder holds no pictures", where=str(folder), fix=f"pictures are files ending in {suffixes}")
    if preprocess is None:
        raise InputError(
            "pictures need --preprocess: how they become the model's input is not in the model",
            where=str(folder),
            fix=f"for {spec}: --preprocess {_suggestion(spec)} with the scale, mean and std of the training",
        )
    steps = preprocess

    def read(i: int) -> dict[str, np.ndarray]:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(files[i]) as image:
                return {spec.name: steps.apply(image)}
        except InputError as error:
            raise InputError(error.what, where=str(files[i]), fix=error.fix) from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"the picture cannot be read: {error}", where=str(files[i]), fix="remove or replace the file"
            ) from None

    return _Samples("images", len(files), read, lambda i: files[i].relative_to(folder).as_posix())


def _suggestion(spec: TensorSpec) -> str:
    sides = [d for d in spec.shape[1:] if isinstance(d, int)]
    if len(spec.shape) != 4 or len(sides) != 3:
        return "unit"
    nchw = sides[0] in (1, 3)
    channels, height, width = sides if nchw else (sides[2], sides[0], sides[1])
    gray = ",color=gray" if channels == 1 else ""
    return f"unit,resize={width}x{height},layout={'nchw' if nchw else 'nhwc'}{gray}"


def _load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
    except Exception as error:  # OSError, ValueError, EOFError, zipfile.BadZipFile … have no common base
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        fix = "save it with numpy.save or numpy.savez, from arrays of numbers"
        raise InputError(f"the file cannot be read as numpy's {path.suffix}: {reason}", where=str(path), fix=fix) from None


def _by_input(archive: Any, inputs: Sequence[TensorSpec], spec: str) -> dict[str, np.ndarray]:
    have = list(archive.files)
    names = {i.name: i.name for i in inputs}
    if len(inputs) == 1 and len(have) == 1:
        names = {inputs[0].name: have[0]}
    missing = [name for name in names.values() if name not in have]
    if missing:
        raise InputError(
            f"no array for the input {missing[0]!r}",
            where=f"{spec} holds {', '.join(have) or 'nothing'}",
            fix=f"save it with numpy.savez(file, **{{{', '.join(f'{i.name!r}: …' for i in inputs)}}})",
        )
    try:
        return {name: archive[key] for name, key in names.items()}
    except Exception as error:  # objects, or a damaged archive: zipfile.BadZipFile, zlib.error, EOFError …
        raise InputError(f"an array cannot be read: {error}", where=spec, fix="save arrays of numbers, not objects") from None


def _arrays(kind: str, arrays: dict[str, np.ndarray], spec: str, preprocess: Preprocess | None) -> _Samples:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.ndim == 0 or len(array) == 0:
            raise InputError(f"the array for {name!r} holds no samples", where=spec, fix="its first axis counts the samples")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise InputError(f"the arrays hold different numbers of samples ({listed})", where=spec, fix="give one row per sample")

    def read(i: int) -> dict[str, np.ndarray]:
        return {name: _preprocessed(array[i], preprocess, spec) for name, array in arrays.items()}

    return _Samples(kind, next(iter(counts.values())), read, lambda i: f"{spec}, sample {i}")


def _function(spec: str, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, limit: int | None) -> _Samples:
    from edgekit.quantize.function import call_function
    from edgekit.quantize.spool import Spool

    samples = (
        {name: _preprocessed(array, preprocess, spec) for name, array in sample.items()}
        for sample in call_function(spec, [i.name for i in inputs], limit)
    )
    read = Spool(samples, KEEP_BYTES)
    return _Samples("function", len(read), read.__getitem__, lambda i: f"{spec}, sample {i}")


def _preprocessed(array: np.ndarray, preprocess: Preprocess | None, where: str) -> np.ndarray:
    if preprocess is None or array.dtype != np.uint8:
        return array
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    try:
        return preprocess.apply(np.ascontiguousarray(array))
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from None


def _batch_size(samples: _Samples, inputs: Sequence[TensorSpec], origin: str) -> int:
    """How many samples make one feed: the size of the first axis for inputs whose samples come without it."""
    first = samples.read(0)
    wanted = set()
    for spec in inputs:
        array = _present(first, spec, samples.name(0))
        lacks_first = array.ndim == len(spec.shape) - 1
        wanted.add(spec.shape[0] if lacks_first and isinstance(spec.shape[0], int) else 1)
    if len(wanted) > 1:
        raise InputError(
            f"some inputs come as single samples and others as whole batches of {max(wanted)}",
            where=origin,
            fix="give every input without its batch axis, or every input with it",
        )
    return wanted.pop()


def _present(sample: Mapping[str, np.ndarray], spec: TensorSpec, where: str) -> np.ndarray:
    if spec.name not in sample:
        listed = ", ".join(sample)
        raise InputError(f"no data for the input {spec.name!r}", where=f"{where} has {listed}", fix=f"give {spec.name}={spec}")
    return sample[spec.name]


def _feed(
    parts: Sequence[tuple[int, Mapping[str, np.ndarray]]], inputs: Sequence[TensorSpec], name: Callable[[int], str]
) -> Feeds:
    """Stack samples into one feed of exactly the inputs' shapes and dtypes."""
    feed = {}
    for spec in inputs:
        rows = [_fitted(_present(sample, spec, name(i)), spec, name(i)) for i, sample in parts]
        feed[spec.name] = rows[0] if len(rows) == 1 else np.concatenate(rows)
    return feed


def _fitted(array: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    """The sample with its first axis, in the input's dtype, checked for shape and for NaN and infinity."""
    lacks_first = array.ndim == len(spec.shape) - 1
    rows = array[np.newaxis] if lacks_first else array
    want = spec.shape[1:] if lacks_first else spec.shape
    have = rows.shape[1:] if lacks_first else rows.shape
    if len(have) != len(want) or any(isinstance(w, int) and w != h for w, h in zip(want, have, strict=True)):
        raise InputError(
            f"a sample for the input {spec.name!r} is {format_shape(array.shape)}, the model takes {spec}",
            where=where,
            fix=_shape_fix(array.shape, spec),
        )
    rows = np.asarray(_converted(rows, spec, where), order="C")  # ascontiguousarray would give a scalar an axis
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise InputError(f"the data for {spec.name!r} hold NaN or infinity", where=where, fix="remove or repair that sample")
    return rows


def _shape_fix(shape: tuple[int, ...], spec: TensorSpec) -> str:
    want = spec.shape[-3:]
    if len(shape) >= 3 and len(want) == 3 and all(isinstance(d, int) for d in want):
        if tuple(shape[-3:]) == (want[2], want[0], want[1]):
            return "the channels are first here and last in the model: set layout=nhwc, or transpose the data"
        if tuple(shape[-3:]) == (want[1], want[2], want[0]):
            return "the channels are last here and first in the model: set layout=nchw, or transpose the data"
    return "set resize= or crop= in --preprocess, reshape the data, or re-export with --input"


def _converted(array: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    """To the input's dtype where no value can change its meaning."""
    want = np.dtype(spec.dtype)
    if array.dtype == want:
        return array
    both_float = array.dtype.kind == "f" and want == np.float32
    if array.dtype == np.uint8 and want.kind == "f":
        raise InputError(
            f"the data for {spec.name!r} are uint8, the model takes {want}",
            where=where,
            fix="say with --preprocess how pixels become numbers (none takes 0 to 255 as they are)",
        )
    if both_float or np.can_cast(array.dtype, want, "safe"):
        return array.astype(want)
    if array.dtype.kind in "iu" and want.kind in "iu" and (array == array.astype(want)).all():
        return array.astype(want)
    raise InputError(
        f"the data for {spec.name!r} are {array.dtype}, the model takes {want}",
        where=where,
        fix=f"save them as {want}",
    )


class Reread(Sequence[Feeds]):
    """Feeds that are made when they are asked for, for sets that do not fit into memory."""

    def __init__(self, make: Callable[[int], Feeds], count: int) -> None:
        self._make = make
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Feeds: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Feeds]: ...
    def __getitem__(self, index: int | slice) -> Feeds | Sequence[Feeds]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._count))]
        return self._make(range(self._count)[index])

    def __iter__(self) -> Iterator[Feeds]:
        return (self._make(i) for i in range(self._count))


def _kept(make: Callable[[int], Feeds], count: int) -> tuple[Sequence[Feeds], str]:
    """All feeds, checked and hashed in one pass; kept in memory if they fit."""
    digest = hashlib.sha256()
    kept: list[Feeds] = []
    size = 0
    for i in range(count):
        feed = make(i)
        for name, array in feed.items():
            digest.update(f"{name}={format_shape(array.shape)}:{array.dtype}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
            size += array.nbytes
        if size <= KEEP_BYTES:
            kept.append(feed)
    return (tuple(kept) if len(kept) == count else Reread(make, count)), digest.hexdigest()
