"""Which sizes the inputs have: what the model declares, what `--input` fixes, what `--dynamic` keeps open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.contract import TensorSpec, format_shape
from edgekit.errors import InputError


@dataclass(frozen=True)
class Declared:
    """An input as the model declares it: a dimension is a size, a name that dimensions of equal size share, or None.

    `shape` is None where the model says nothing about it (TorchScript, a factory without example inputs).
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: str = "float32"


def resolve_inputs(
    declared: Sequence[Declared], given: Sequence[TensorSpec], dynamic: Sequence[str], path: str, *, free: bool = False
) -> tuple[TensorSpec, ...]:
    """Give each dimension of each input a size or, where `dynamic` asks for it, a name.

    A size comes from `given`, else from the model; dimensions that share a name share the size. What is then still open
    becomes 1 where it is some input's first dimension (the batch), and is an error anywhere else.

    Args:
        free: The declared shapes are examples that `given` may contradict, not constraints of the model.

    Raises:
        InputError: `given` names an input that the model has not or contradicts it; a dimension stays open.
    """
    names = [item.name for item in declared]
    unknown = [spec.name for spec in given if spec.name not in names]
    if unknown:
        raise InputError(
            f"the model has no input {unknown[0]!r}", where=f"--input {unknown[0]}", fix=f"its inputs are: {', '.join(names)}"
        )
    wanted = {spec.name: spec for spec in given}
    kept = _Dynamic(declared, dynamic, free)
    sizes: dict[str, int | str] = {}
    shapes = {item.name: _given_shape(item, wanted.get(item.name), sizes, path, free) for item in declared}
    for shape in shapes.values():
        if shape and isinstance(shape[0], _Open):
            sizes.setdefault(shape[0].symbol, 1)
    return tuple(
        TensorSpec(
            item.name, _closed(item, shapes[item.name], sizes, kept, path), _dtype(item, wanted.get(item.name), path, free)
        )
        for item in declared
    )


@dataclass(frozen=True)
class _Open:
    """A dimension without a size yet; unnamed ones get a symbol that no other dimension has."""

    symbol: str


def _given_shape(
    item: Declared, spec: TensorSpec | None, sizes: dict[str, int | str], path: str, free: bool
) -> tuple[int | str | _Open, ...]:
    if spec is None:
        if item.shape is None:
            raise InputError(
                f"the model does not say which shape its input {item.name!r} has",
                where=path,
                fix=f"pass --input {item.name}=1x3x224x224:float32 with the right sizes",
            )
        return tuple(d if isinstance(d, int) else _symbol(item, axis, d) for axis, d in enumerate(item.shape))
    if item.shape is None or free:
        return spec.shape
    if len(spec.shape) != len(item.shape) or any(
        isinstance(have, int) and have != want for have, want in zip(item.shape, spec.shape, strict=True)
    ):
        raise InputError(
            f"the model's input {item.name!r} is {format_shape('?' if d is None else d for d in item.shape)}",
            where=f"--input {spec.name}={spec}",
            fix="only its open dimensions can be given a size",
        )
    for axis, (have, want) in enumerate(zip(item.shape, spec.shape, strict=True)):
        if not isinstance(have, int):
            symbol = _symbol(item, axis, have).symbol
            if sizes.setdefault(symbol, want) != want:
                raise InputError(
                    f"the dimension {symbol!r} cannot be both {sizes[symbol]} and {want}", where=f"--input {spec.name}={spec}"
                )
    return spec.shape


def _symbol(item: Declared, axis: int, dimension: str | None) -> _Open:
    return _Open(dimension if dimension is not None else f"{item.name}:{axis}")


def _closed(
    item: Declared, shape: Sequence[int | str | _Open], sizes: dict[str, int | str], kept: _Dynamic, path: str
) -> tuple[int | str, ...]:
    closed: list[int | str] = []
    for axis, dimension in enumerate(shape):
        label = kept.label(item, axis)
        if label is not None:
            closed.append(label)
        elif not isinstance(dimension, _Open):
            closed.append(dimension)
        elif dimension.symbol in sizes:
            closed.append(sizes[dimension.symbol])
        else:
            example = "x".join("SIZE" if isinstance(d, _Open) and d.symbol not in sizes else _text(d, sizes) for d in shape)
            raise InputError(
                f"dimension {axis} of the input {item.name!r} is open",
                where=f"{path} ({item.name}={example})",
                fix=f"pass --input {item.name}={example}:{item.dtype}, or keep it open with --dynamic {item.name}:{axis}",
            )
    return tuple(closed)


def _text(dimension: int | str | _Open, sizes: dict[str, int | str]) -> str:
    return str(sizes[dimension.symbol] if isinstance(dimension, _Open) else dimension)


def _dtype(item: Declared, spec: TensorSpec | None, path: str, free: bool) -> str:
    if spec is None or np.dtype(spec.dtype) == np.dtype(item.dtype):
        return item.dtype
    if free or item.shape is None:
        return spec.dtype
    raise InputError(
        f"the model's input {item.name!r} is {item.dtype}",
        where=f"--input {spec.name}={spec} for {path}",
        fix=f"write it as --input {spec.name}={format_shape(spec.shape)}:{item.dtype}",
    )


class _Dynamic:
    """The names that `--dynamic` gives to dimensions."""

    def __init__(self, declared: Sequence[Declared], dynamic: Sequence[str], free: bool) -> None:
        self.labels: dict[tuple[str, int], str] = {}
        self.symbols: set[str] = set()
        self.free = free
        symbols = {d for item in declared for d in item.shape or () if isinstance(d, str)}
        by_name = {item.name: item for item in declared}
        for text in dynamic:
            one = re.fullmatch(r"(?P<input>.+):(?P<axis>\d+)(=(?P<label>[A-Za-z_]\w*))?", text)
            if one and one["input"] in by_name:
                axis = int(one["axis"])
                label = one["label"] or f"{re.sub(r'[^a-zA-Z0-9_]', '_', one['input'])}_{axis}"
                self._keep([by_name[one["input"]]], axis, label, text)
            elif text in symbols:
                self.symbols.add(text)
            elif text == "batch":
                self._keep(declared, 0, "batch", text)
            else:
                raise InputError(
                    f"{text!r} is no dimension of the model",
                    where=f"--dynamic {text}",
                    fix=f"use {', '.join(sorted({'batch', *symbols}))}, or INPUT:AXIS=NAME",
                )

    def _keep(self, items: Sequence[Declared], axis: int, label: str, text: str) -> None:
        """Those of `items` that leave the axis open; none of them doing so is a mistake."""
        kept = [item for item in items if item.shape is None or self.free or _is_open(item.shape, axis)]
        if not kept:
            have = ", ".join(f"{item.name}={format_shape('?' if d is None else d for d in item.shape or ())}" for item in items)
            raise InputError(
                f"the model does not leave dimension {axis} open: {have}",
                where=f"--dynamic {text}",
                fix="leave --dynamic away, or save the model with that dimension open",
            )
        self.labels |= {(item.name, axis): label for item in kept}

    def label(self, item: Declared, axis: int) -> str | None:
        """The name that keeps this dimension open, or None."""
        if (item.name, axis) in self.labels:
            return self.labels[item.name, axis]
        declared = item.shape[axis] if item.shape is not None and axis < len(item.shape) else None
        return declared if isinstance(declared, str) and declared in self.symbols else None


def _is_open(shape: Sequence[int | str | None], axis: int) -> bool:
    return axis < len(shape) and not isinstance(shape[axis], int)
