"""A long list of samples in little memory: what a function gives comes once, and calibration asks for it more than once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np

Sample = dict[str, np.ndarray]


class Spool:
    """Samples in the order in which they came: the first in memory, the others in a temporary file that ends with the process.

    Args:
        samples: Each a dict of arrays, of any shapes and dtypes.
        keep: How many bytes may stay in memory.
    """

    def __init__(self, samples: Iterable[Sample], keep: int) -> None:
        self._kept: list[Sample] = []
        self._places: list[list[tuple[str, int, tuple[int, ...], np.dtype]]] = []
        self._file = tempfile.TemporaryFile(prefix="edgekit-")  # noqa: SIM115  # it lives as long as the samples
        for sample in samples:
            keep -= sum(array.nbytes for array in sample.values())
            if keep >= 0 and not self._places:
                self._kept.append(sample)
            else:
                self._places.append([self._written(name, array) for name, array in sample.items()])

    def __len__(self) -> int:
        return len(self._kept) + len(self._places)

    def __getitem__(self, i: int) -> Sample:
        if i < len(self._kept):
            return self._kept[i]
        return {name: self._read(offset, shape, dtype) for name, offset, shape, dtype in self._places[i - len(self._kept)]}

    def _written(self, name: str, array: np.ndarray) -> tuple[str, int, tuple[int, ...], np.dtype]:
        offset = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(array).data if array.size else b"")
        return name, offset, array.shape, array.dtype

    def _read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = np.empty(shape, dtype)
        self._file.seek(offset)
        if array.size:
            array.data.cast("B")[:] = self._file.read(array.nbytes)
        return array
