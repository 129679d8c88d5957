"""Einsum becomes Transpose, Reshape, ReduceSum and MatMul.

    1. "ij->ji"              one operand      →  ReduceSum over what is dropped → Transpose
    2. "bhid,bhjd->bhij"     two operands     →  Transpose both to [batch, free, summed] → MatMul → Transpose
    3. "ij,jk,kl->il"        more operands    →  "ij,jk->ik" of the first two, then "ik,kl->il"

       batch: in both operands and in the result · summed: in both and not in the result · free: in one operand
       what only one operand has and the result has not is summed first; several free or summed axes are reshaped into one

Before that, every operand is brought to one letter for each of its axes:

       "...ij,...jk"         an ellipsis      →  letters that are free, counted from the last axis
       "bii->bi"             a diagonal       →  Reshape of both axes to one → Slice with a step of their size + 1
       "bij,bjk" of 1 and 8  b broadcasts     →  Reshape without it, where it has the size 1

An operand of unknown rank, a diagonal of unknown size, or more symbolic dimensions than a Reshape can say: left alone.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit.hub import dims
from edgekit.hub.edit import Editor, shape


def lower_einsum(node: ir.Node, edit: Editor) -> bool:
    """All cases."""
    spelled = _letters(node)
    if spelled is None:
        return False
    terms, result = spelled
    known = [shape(value) for value in node.inputs]
    sizes = _sizes(terms, known)
    if sizes is None or not all(map(_can_be_plain, terms, known)):
        return False
    if len(terms) == 1:
        value, term = _plain(node, node.inputs[0], terms[0], sizes, edit)
        value = _sum_away(node, value, term, set(result), edit)
        kept = "".join(index for index in term if index in result)
        return edit.replace(node.outputs[0], _permute(node, value, kept, result, edit))
    if len(terms) == 2:
        return _matmul(node, terms, result, sizes, edit)
    inner = "".join(index for index in sizes if index in terms[0] + terms[1] and index in "".join([*terms[2:], result]))
    first = edit.op("Einsum", node.inputs[:2], {"equation": f"{terms[0]},{terms[1]}->{inner}"}, before=node)
    rest = ",".join([inner, *terms[2:]])
    return edit.replace(
        node.outputs[0], edit.op("Einsum", [first, *node.inputs[2:]], {"equation": f"{rest}->{result}"}, before=node)
    )


def _letters(node: ir.Node) -> tuple[list[str], str] | None:
    """The terms and the result with one letter for each axis, None where the equation does not fit the operands."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    ranks = [len(known) if (known := shape(value)) is not None else None for value in node.inputs]
    named = [term.replace("...", "") for term in terms]
    hidden = [rank - len(name) if rank is not None else -1 for rank, name in zip(ranks, named, strict=False)]
    if len(terms) != len(ranks) or any(
        left < 0 or ("..." not in term and left) for left, term in zip(hidden, terms, strict=True)
    ):
        return None
    free = [letter for letter in string.ascii_letters if letter not in equation]
    most = max(hidden)
    if most > len(free):
        return None
    stands = "".join(free[:most])
    if not arrow:
        once = sorted(index for index in set("".join(named)) if "".join(named).count(index) == 1)
        result = "..." * ("..." in given) + "".join(once)
    spelled = [term.replace("...", stands[most - left :]) for term, left in zip(terms, hidden, strict=True)]
    result = result.replace("...", stands)
    return (spelled, result) if len(set(result)) == len(result) and set(result) <= set("".join(spelled)) else None


def _sizes(terms: Sequence[str], known: Sequence[tuple[dims.Dim, ...] | None]) -> dict[str, dims.Dim] | None:
    """What each index counts to, in the order of appearance; None where operands disagree by more than a broadcast."""
    sizes: dict[str, dims.Dim] = {}
    for term, shape_of_term in zip(terms, known, strict=True):
        for index, dim in zip(term, shape_of_term or (), strict=True):
            if sizes.setdefault(index, dim) == 1:
                sizes[index] = dim
            elif dim not in (1, sizes[index]):
                return None
    return sizes


def _can_be_plain(term: str, known: tuple[dims.Dim, ...] | None) -> bool:
    """Whether each index stands once in the term, or its diagonal can be said with a Reshape."""
    assert known is not None
    if len(set(term)) == len(term):
        return True
    sizes = dict(zip(term, known, strict=True))
    twice = all(
        sizes[index] == dim and isinstance(dim, int) for index, dim in zip(term, known, strict=True) if term.count(index) > 1
    )
    return twice and sum(isinstance(dim, str) for dim in known) <= 1


def _plain(node: ir.Node, value: ir.Value | None, term: str, sizes: dict[str, dims.Dim], edit: Editor) -> tuple[ir.Value, str]:
    """An operand with every index once, without those that it broadcasts along."""
    assert value is not None
    while len(set(term)) != len(term):
        value, term = _diagonal(node, value, term, edit)
    alone = [place for place, (index, dim) in enumerate(zip(term, shape(value) or (), strict=True)) if dim != sizes[index]]
    if alone:
        axes = _vector(node, "axes", alone, edit)
        value = edit.op("Squeeze", [value, axes], before=node)
    return value, "".join(index for place, index in enumerate(term) if place not in alone)


def _diagonal(node: ir.Node, value: ir.Value, term: str, edit: Editor) -> tuple[ir.Value, str]:
    """The diagonal of the first two axes that share an index, which comes last."""
    index = next(index for index in term if term.count(index) > 1)
    first = term.index(index)
    second = term.index(index, first + 1)
    rest = [place for place in range(len(term)) if place not in (first, second)]
    known = shape(value)
    assert known is not None
    size = known[first]
    assert isinstance(size, int)
    perm = [*rest, first, second]
    if perm != sorted(perm):
        value = edit.op("Transpose", [value], {"perm": perm}, before=node)
    flat = _reshape(node, value, [*(known[place] for place in rest), size * size], edit)
    bounds = (("start", 0), ("end", size * size), ("axis", len(rest)), ("step", size + 1))
    found = edit.op("Slice", [flat, *(_vector(node, name, [number], edit) for name, number in bounds)], before=node)
    return found, "".join(term[place] for place in rest) + index


def _matmul(node: ir.Node, terms: list[str], result: str, sizes: dict[str, dims.Dim], edit: Editor) -> bool:
    left, right = (_whole(term, value, sizes) for term, value in zip(terms, node.inputs, strict=True))
    batch = [index for index in result if index in left and index in right]
    summed = [index for index in left if index in right and index not in result]
    rows = [index for index in left if index in result and index not in right]
    columns = [index for index in right if index in result and index not in left]
    groups = (rows, summed, columns)
    if any(sum(isinstance(sizes[index], str) for index in [*batch, *group]) > 1 for group in groups if len(group) != 1):
        return False  # Reshape can leave at most one dimension open
    operands = []
    for value, term, order in ((node.inputs[0], terms[0], (rows, summed)), (node.inputs[1], terms[1], (summed, columns))):
        wanted = "".join([*batch, *order[0], *order[1]])
        value, term = _plain(node, value, term, sizes, edit)
        value = _sum_away(node, value, term, set(wanted), edit)
        kept = "".join(index for index in term if index in wanted)
        value = _permute(node, value, kept, wanted, edit)
        operands.append(_group(node, value, batch, order, sizes, edit))
    product = edit.op("MatMul", operands, before=node)
    flat = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        product = _reshape(node, product, [sizes[index] for index in flat], edit)
    return edit.replace(node.outputs[0], _permute(node, product, "".join(flat), result, edit))


def _whole(term: str, value: ir.Value | None, sizes: dict[str, dims.Dim]) -> str:
    """The indices of an operand that it does not broadcast along, once each."""
    known = shape(value) or ()
    return "".join(dict.fromkeys(index for index, dim in zip(term, known, strict=True) if dim == sizes[index]))


def _sum_away(node: ir.Node, value: ir.Value | None, term: str, wanted: set[str], edit: Editor) -> ir.Value:
    assert value is not None
    axes = [axis for axis, index in enumerate(term) if index not in wanted]
    if not axes:
        return value
    return edit.op("ReduceSum", [value, _vector(node, "axes", axes, edit)], {"keepdims": 0}, before=node)


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
    numbers = [dim if isinstance(dim, int) else -1 for dim in target]
    return edit.op("Reshape", [value, _vector(node, "shape", numbers, edit)], before=node)


def _vector(node: ir.Node, name: str, numbers: Sequence[int], edit: Editor) -> ir.Value:
    assert node.graph is not None
    return edit.constant(np.array(numbers, np.int64), f"{node.outputs[0].name}_{name}", node.graph)


RULES = {"Einsum": [lower_einsum]}
