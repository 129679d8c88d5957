"""What is known of a value: its dimensions, and the elements of small integer tensors.

`Contents` holds what is known of small integer tensors (scalars and vectors) whose elements are dimensions: flattened, with
symbols where an element is not a number. Booleans are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from edgekit.errors import CompileError, SourceError
from edgekit.hub.dims import Dim

Contents = dict[ir.Value, tuple[Dim, ...]]
Dims = tuple[Dim, ...]
Known = tuple[ir.DataType | None, Dims | None]

SMALL = 64  # elements: constants up to this size are shown to ONNX's inference, and may be contents


def shape_of(value: ir.Value) -> Dims | None:
    """A value's dimensions; a symbolic one is its name, None where the rank is not known."""
    if value.shape is None:
        return None
    found = value.shape.dims
    if {int}.issuperset(map(type, found)):
        return cast(Dims, found)
    return tuple(
        dim if isinstance(dim, int) else dim.value or f"unknown_{identifier(value.name or '')}_{axis}"
        for axis, dim in enumerate(found)
    )


def broadcast_shapes(shapes: Sequence[Dims]) -> Dims | None:
    """The shape that results from broadcasting; None where two symbols or numbers may differ."""
    rank = max((len(shape) for shape in shapes), default=0)
    found: list[Dim] = []
    for axis in range(-rank, 0):
        options = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        numbers = {dim for dim in options if isinstance(dim, int)}
        if len(numbers) > 1 or (not numbers and len(options) > 1):
            return None
        # A symbol beside a number other than 1 can only be that number or 1.
        found.append(numbers.pop() if numbers else options.pop() if options else 1)
    return tuple(found)


def known_contents(value: ir.Value | None, contents: Contents) -> Dims | None:
    """The elements of a small integer tensor, constant or computed from shapes; None where they are not known."""
    if value is None:
        return None
    if value.shape is not None and 0 in value.shape.dims:
        return ()
    if value.is_initializer() and value.const_value is not None:
        tensor = value.const_value
        if tensor.size > SMALL or not (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL):
            return None
        return tuple(int(item) for item in tensor.numpy().reshape(-1))
    return contents.get(value)


def identifier(name: str) -> str:
    """A value's name as the name of a symbol."""
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_") or "value"


def unexpected(node: ir.Node, error: Exception) -> CompileError:
    """The error for a node that a pass or a lowering stumbled over: the last resort, where no check has said it better."""
    kind = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return CompileError(
        f"{node.op_type} cannot be compiled ({kind})",
        where=f"node {node.name or node.outputs[0].name!r}, operator {node.op_type}",
        fix="check the shapes and attributes of the node; if the model runs elsewhere, report it with the output of --debug",
    )


def does_not_fit(node: ir.Node, reason: str) -> SourceError:
    """The error for a node whose inputs contradict it."""
    return SourceError(
        f"the inputs of {node.op_type} do not fit it: {reason}",
        where=f"node {node.name or node.outputs[0].name!r}",
        fix="check the shapes given with --input; if the model runs elsewhere, it declares a wrong shape or dtype",
    )
