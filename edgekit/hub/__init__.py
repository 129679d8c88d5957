"""The hub: one clean ONNX graph from which the artifacts of every runtime are made.

`prepare` turns any ONNX model into the hub dialect that docs/hub.md describes and `edgekit.hub.check` tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgekit.collection import paused_collection

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.hub.edit import Editor
    from edgekit.hub.rewrite import Rules

__all__ = ["OLDEST_OPSET", "OPSET", "prepare"]

OPSET = 20  # the least that a hub graph has; newer models keep theirs
OLDEST_OPSET = 7

_ROUNDS = 6


@paused_collection()
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
    from edgekit.hub.passes.bind_symbols import bind_symbols
    from edgekit.hub.passes.expand_quantized import expand_quantized
    from edgekit.hub.passes.interface import settle_interface
    from edgekit.hub.passes.propagate import propagate
    from edgekit.hub.passes.validate import validate

    settle_interface(model, shapes)
    since = _raise_opset(model)
    validate(model, since)
    expand_quantized(model, since)
    edit = Editor(model)
    propagate(edit, since)
    bind_symbols(edit)
    _simplify(edit, _patterns())
    _remove_transposes(edit)
    _simplify(edit, _everything())
    return model


def _patterns() -> Rules:
    """What does not depend on where the Transposes are: one spelling for everything, and the operators that were spelled out."""
    from edgekit.hub.passes import (
        canonicalize,
        drop_no_ops,
        fuse_activation,
        fuse_attention,
        fuse_norm,
        gather_rows,
        lower_einsum,
        merge_bounds,
        merge_concats,
        merge_reshapes,
        merge_slices,
        resolve_sequences,
        simplify_constants,
    )
    from edgekit.hub.passes.propagate import FOLD_RULES
    from edgekit.hub.rewrite import combine

    return combine(
        FOLD_RULES,
        resolve_sequences.RULES,
        drop_no_ops.RULES,
        canonicalize.RULES,
        merge_bounds.RULES,
        fuse_norm.RULES,
        fuse_activation.RULES,
        fuse_attention.RULES,
        gather_rows.RULES,
        lower_einsum.RULES,
        merge_concats.RULES,
        merge_reshapes.RULES,
        merge_slices.RULES,
        simplify_constants.RULES,
    )


def _everything() -> Rules:
    """What works on neighbours, which Transposes would keep apart. Last, so that it takes no pattern to pieces."""
    from edgekit.hub.passes import (
        fuse_batch_norm,
        fuse_linear,
        fuse_pad,
        fuse_quantized_weights,
        merge_reshapes,
        scale_through_relu,
    )
    from edgekit.hub.rewrite import combine

    return combine(
        _patterns(),
        fuse_quantized_weights.RULES,
        fuse_pad.RULES,
        fuse_linear.RULES,
        scale_through_relu.RULES,
        fuse_batch_norm.RULES,
        merge_reshapes.LATE_RULES,
    )


def _simplify(edit: Editor, rules: Rules) -> None:
    """Rewrite, put in order, and settle what that has opened, until nothing changes."""
    from edgekit.hub.passes.finish import finish
    from edgekit.hub.passes.propagate import propagate
    from edgekit.hub.rewrite import rewrite

    for turn in range(_ROUNDS):
        changed = rewrite(edit, rules)
        if not changed and turn:
            return
        if not finish(edit) and not changed:
            return
        propagate(edit, again=True)


def _remove_transposes(edit: Editor) -> None:
    from edgekit.hub.passes.propagate import propagate
    from edgekit.layout import remove_transposes

    if any(node.op_type == "Transpose" for node in edit.model.graph):
        remove_transposes(edit.model)
        edit.forget()
        propagate(edit)
        _simplify(edit, _patterns())


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
