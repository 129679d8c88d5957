"""`file.py:function` as a source of data: the user's own code, run on the user's own word."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import InputError


def split_function_spec(spec: str) -> tuple[Path, str] | None:
    """`data.py:samples` as its file and its function's name; None where the text does not have that form."""
    found = re.fullmatch(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)", spec)
    return (Path(found["file"]), found["function"]) if found else None


def call_function(spec: str, names: Sequence[str], limit: int | None) -> Iterator[dict[str, np.ndarray]]:
    """Run the function of `spec` and give its samples, at most `limit`, as dicts keyed by input name.

    Args:
        spec: `file.py:function`; the function takes no arguments and gives an iterable of samples.
        names: The model's inputs: a tuple or list is taken in this order, a lone array goes to the only one.

    Raises:
        InputError: The file or the function does not exist, raises, or gives something else than samples.
    """
    function = _function(spec)
    samples = _guarded(spec, function)
    if not isinstance(samples, Iterable) or isinstance(samples, Mapping | str | bytes):
        raise InputError(f"the function gave {_kind(samples)}", where=spec, fix="yield one sample after another")
    iterator = iter(samples)
    count = 0
    while limit is None or count < limit:
        found = _guarded(spec, lambda: list(islice(iterator, 1)))
        if not found:
            break
        yield _keyed(found[0], names, f"{spec}, sample {count}")
        count += 1
    if count == 0:
        raise InputError("the function gave no samples", where=spec, fix="yield at least one sample")


def _function(spec: str) -> Any:
    split = split_function_spec(spec)
    assert split is not None, spec
    path, name = split
    if not path.is_file():
        raise InputError("the file does not exist", where=str(path), fix="check the path before the colon")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None, path  # a .py file always has a loader
    assert module_spec.loader is not None, path
    module = importlib.util.module_from_spec(module_spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as python file.py does, so that the file can import its neighbours
    try:
        _guarded(spec, lambda: module_spec.loader.exec_module(module))  # type: ignore[union-attr]
    finally:
        sys.path.remove(folder)
    function = getattr(module, name, None)
    if not callable(function):
        have = ", ".join(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise InputError(f"there is no function {name!r}", where=str(path), fix=f"it defines {have or 'no functions'}")
    return function


def _guarded(spec: str, call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"the function failed: {type(error).__name__}: {error}", where=spec, fix="correct it") from error


def _keyed(sample: Any, names: Sequence[str], where: str) -> dict[str, np.ndarray]:
    if isinstance(sample, Mapping):
        unknown = [str(key) for key in sample if key not in names]
        if unknown:
            listed = ", ".join(names)
            raise InputError(f"{unknown[0]!r} is not an input", where=where, fix=f"the inputs are {listed}")
        return {str(key): np.asarray(value) for key, value in sample.items()}
    values = list(sample) if isinstance(sample, tuple | list) and len(names) > 1 else None
    if values is None and isinstance(sample, tuple) and len(sample) == 1:
        values = list(sample)
    values = [sample] if values is None else values
    if len(values) != len(names):
        listed = ", ".join(names)
        raise InputError(f"the sample has {len(values)} arrays for {len(names)} inputs", where=where, fix=f"give {listed}")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
