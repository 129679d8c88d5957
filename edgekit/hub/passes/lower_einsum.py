"""Einsum of one or two operands becomes Transpose, Reshape, ReduceSum and MatMul.

    1. "ij->ji"              one operand      →  ReduceSum over what is dropped → Transpose
    2. "bhid,bhjd->bhij"     two operands     →  Transpose both to [batch, free, summed] → MatMul → Transpose

       batch: in both operands and in the result · summed: in both and not in the result · free: in one operand
       what only one operand has and the result has not is summed first; several free or summed axes are reshaped into one

An index twice in one operand (a diagonal), an ellipsis, three operands, or more symbolic dimensions than a Reshape can say: left
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit.hub import dims
from edgekit.hub.edit import Editor, shape


def lower_einsum(node: ir.Node, edit: Editor) -> bool:
    """Both cases."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    given, _, result = equation.partition("->")
    terms = given.split(",")
    if "->" not in equation:
        result = "".join(sorted(index for index in set(given) - {","} if given.count(index) == 1))
    if "." in equation or any(len(set(term)) != len(term) for term in (*terms, result)) or len(terms) > 2:
        return False
    sizes: dict[str, dims.Dim] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        known = shape(value)
        if known is None or len(known) != len(term):
            return False
        for index, dim in zip(term, known, strict=True):
            if sizes.setdefault(index, dim) != dim:
                return False  # a size of 1 that broadcasts
    if len(terms) == 1:
        value = _sum_away(node, node.inputs[0], terms[0], set(result), edit)
        kept = "".join(index for index in terms[0] if index in result)
        return edit.replace(node.outputs[0], _permute(node, value, kept, result, edit))
    return _matmul(node, terms, result, sizes, edit)


def _matmul(node: ir.Node, terms: list[str], result: str, sizes: dict[str, dims.Dim], edit: Editor) -> bool:
    left, right = terms
    batch = [index for index in result if index in left and index in right]
    summed = [index for index in left if index in right and index not in result]
    rows = [index for index in left if index in result and index not in right]
    columns = [index for index in right if index in result and index not in left]
    groups = (rows, summed, columns)
    if any(sum(isinstance(sizes[index], str) for index in [*batch, *group]) > 1 for group in groups if len(group) != 1):
        return False  # Reshape can leave at most one dimension open
    operands = []
    for value, term, order in ((node.inputs[0], left, (rows, summed)), (node.inputs[1], right, (summed, columns))):
        wanted = "".join([*batch, *order[0], *order[1]])
        value = _sum_away(node, value, term, set(wanted), edit)
        kept = "".join(index for index in term if index in wanted)
        value = _permute(node, value, kept, wanted, edit)
        operands.append(_group(node, value, batch, order, sizes, edit))
    product = edit.op("MatMul", operands, before=node)
    flat = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        product = _reshape(node, product, [sizes[index] for index in flat], edit)
    return edit.replace(node.outputs[0], _permute(node, product, "".join(flat), result, edit))


def _sum_away(node: ir.Node, value: ir.Value | None, term: str, wanted: set[str], edit: Editor) -> ir.Value:
    assert value is not None
    assert node.graph is not None
    axes = [axis for axis, index in enumerate(term) if index not in wanted]
    if not axes:
        return value
    constant = edit.constant(np.array(axes, np.int64), f"{node.outputs[0].name}_axes", node.graph)
    return edit.op("ReduceSum", [value, constant], {"keepdims": 0}, before=node)


def _permute(node: ir.Node, value: ir.Value, have: str, want: str, edit: Editor) -> ir.Value:
    if have == want:
        return value
    return edit.op("Transpose", [value], {"perm": [have.index(index) for index in want]}, before=node)


def _group(
    node: ir.Node, value: ir.Value, batch: Sequence[str], order: Sequence[Sequence[str]], sizes: dict[str, dims.Dim], edit: Editor
) -> ir.Value:
    if all(len(group) == 1 for group in order):
        return value
    merged = [dims.product(sizes[index] for index in group) for group in order]
    return _reshape(node, value, [*(sizes[index] for index in batch), *merged], edit)


def _reshape(node: ir.Node, value: ir.Value, target: Sequence[dims.Dim], edit: Editor) -> ir.Value:
    assert node.graph is not None
    numbers = [dim if isinstance(dim, int) else -1 for dim in target]
    constant = edit.constant(np.array(numbers, np.int64), f"{node.outputs[0].name}_shape", node.graph)
    return edit.op("Reshape", [value, constant], before=node)


RULES = {"Einsum": [lower_einsum]}
