"""The hub: one clean ONNX graph from which the artifacts of every runtime are made.

`prepare` turns any ONNX model into the hub dialect that docs/hub.md describes and `edgekit.hub.check` tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.hub.edit import Editor

__all__ = ["OLDEST_OPSET", "OPSET", "prepare"]

OPSET = 20  # the least that a hub graph has; newer models keep theirs
OLDEST_OPSET = 7

_ROUNDS = 6


def prepare(model: ir.Model, *, shapes: Mapping[str, tuple[int | str, ...]] = MappingProxyType({})) -> ir.Model:
    """Turn a model into the clean hub graph.

    The model is changed in place and owned by the hub from here on; weights that no pass has to change are not copied.

    Args:
        model: Any ONNX model from opset 7 up.
        shapes: New shapes of inputs, by name; a str keeps a dimension symbolic. Other inputs keep theirs.

    Returns:
        The same model, in the hub dialect.

    Raises:
        InputError: `shapes` does not fit the model's inputs.
        SourceError: The model is of an older opset, or is not consistent.
    """
    from edgekit.hub.edit import Editor
    from edgekit.hub.passes.interface import settle_interface
    from edgekit.hub.passes.propagate import propagate

    settle_interface(model, shapes)
    since = _raise_opset(model)
    edit = Editor(model)
    propagate(edit, since)
    _simplify(edit, _cleaning())
    _remove_transposes(edit)
    _simplify(edit, _fusions())
    return model


def _cleaning() -> Mapping[str, list]:
    from edgekit.hub.passes import drop_no_ops
    from edgekit.hub.rewrite import combine

    return combine(drop_no_ops.RULES)


def _fusions() -> Mapping[str, list]:
    from edgekit.hub.passes import drop_no_ops, fuse_batch_norm, fuse_linear
    from edgekit.hub.rewrite import combine

    return combine(drop_no_ops.RULES, fuse_linear.RULES, fuse_batch_norm.RULES)


def _simplify(edit: Editor, rules: Mapping[str, list]) -> None:
    """Rewrite, then settle what the rewriting has opened, until neither finds more."""
    from edgekit.hub.passes.finish import finish
    from edgekit.hub.passes.propagate import propagate
    from edgekit.hub.rewrite import rewrite

    for _ in range(_ROUNDS):
        changed = rewrite(edit, rules)
        shared = finish(edit)
        if not changed and not shared:
            return
        propagate(edit)


def _remove_transposes(edit: Editor) -> None:
    try:
        from edgekit.layout import remove_transposes
    except ImportError:
        return
    remove_transposes(edit.model)


def _raise_opset(model: ir.Model) -> int:
    """Declare the hub's opset.

    Returns:
        The opset that the nodes are written in.
    """
    from edgekit.errors import SourceError

    since = model.opset_imports.get("", OLDEST_OPSET)
    if since < OLDEST_OPSET:
        raise SourceError(
            f"the model is of ONNX opset {since}",
            where="the model's opset_import",
            fix=f"convert it to opset {OLDEST_OPSET} or newer with onnx.version_converter.convert_version",
        )
    model.opset_imports[""] = max(since, OPSET)
    model.ir_version = max(model.ir_version or 0, 9)
    return since
