"""One walk forward over the model that settles every node: upgraded, folded if constant, else typed and shaped.

A value is settled before anything reads it, so that chains such as Shape → Gather → Concat → Reshape resolve in one walk:

    1. a node of an older opset is rewritten (`upgrade`)
    2. Constant becomes an initializer
    3. an If whose condition is constant is replaced by the branch that is taken, and an If of which one branch does not fit the
       shapes of this model (it could only fail) by the other
    4. dtypes and shapes are inferred (`edgekit.hub.infer`); graphs inside If, Loop and Scan are walked with what is known outside
    5. a node whose inputs are all constant is computed, unless the result is more than 16 MB larger, the operator is random,
       or it is DequantizeLinear or QuantizeLinear (which say how a weight is stored)
    6. a node whose contents are known to be numbers (Shape of a static shape) is a constant even if its inputs are not
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit.errors import EdgekitError, SourceError
from edgekit.hub import facts, infer
from edgekit.hub.edit import Editor, is_constant, producer, release, scalar, static_shape, subgraphs
from edgekit.hub.edit import array as array_of
from edgekit.hub.evaluate import evaluate
from edgekit.hub.passes.upgrade import upgrade_node

_MAY_GROW = 16 << 20  # bytes


def propagate(edit: Editor, since: int | None = None, *, again: bool = False) -> None:
    """Settle every node of the model.

    Args:
        edit: The model's editor. Its opset is the hub's already.
        since: The opset that the nodes are written in, where it is older.
        again: An earlier walk has been here, and only an `Editor` has changed the model since: what is static stays.

    Raises:
        SourceError: A node does not fit its inputs or does not exist in its opset.
    """
    _walk(edit.model.graph, edit, since, again)


def _walk(graph: ir.Graph, edit: Editor, since: int | None, again: bool = False) -> None:
    for node in list(graph):
        if node.graph is not graph:
            continue
        try:
            _settle(node, edit, since, again)
        except EdgekitError:
            raise
        except Exception as error:
            raise facts.unexpected(node, error) from error


def _settle(node: ir.Node, edit: Editor, since: int | None, again: bool = False) -> None:
    if node.domain == "" and since is not None:
        edit.touched.clear()
        upgrade_node(node, since, edit)
        if node.graph is None:
            return _fold_new(edit)
    if node.op_type == "Constant" and node.domain == "":
        value = edit.initializer(_constant_tensor(node), f"{node.outputs[0].name}_value", _graph(node))
        edit.replace_by_constant(node.outputs[0], value)
        return None
    if node.op_type == "If" and (taken := scalar(node.inputs[0])) is not None:
        return _take_branch(node, "then_branch" if taken else "else_branch", edit, since)
    if node.domain == "" and node.op_type in ("If", "Loop", "Scan"):
        _CONTROL_FLOW[node.op_type](node, edit, since)
        return None
    for graph in subgraphs(node):
        _walk(graph, edit, since)
    if again and all(infer.is_static(output) for output in node.outputs):
        infer.infer_contents(node, edit.contents)
    else:
        infer.infer_node(node, edit.model.opset_imports, edit.contents)
    fold(node, edit)
    return None


def fold(node: ir.Node, edit: Editor) -> bool:
    """Replace a node by constants where its outputs do not depend on the model's inputs (cases 5 and 6)."""
    if node.domain != "" or not node.outputs:
        return False
    known = edit.contents.get(node.outputs[0])
    if known is not None and len(node.outputs) == 1 and all(isinstance(item, int) and abs(item) < 1 << 63 for item in known):
        output = node.outputs[0]
        dims = static_shape(output)
        if dims is not None and output.dtype is not None:
            return _become(node, [np.array(known, output.dtype.numpy()).reshape(dims)], edit)
    if not node.inputs or not all(value is None or is_constant(value) for value in node.inputs) or any(subgraphs(node)):
        return False
    given = sum(value.const_value.nbytes for value in node.inputs if value is not None and value.const_value is not None)
    if _bytes(node) > given + _MAY_GROW:
        return False
    try:
        results = evaluate(node, [array_of(value) for value in node.inputs], edit.opset)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise facts.does_not_fit(node, f"it cannot be computed for these constants ({error})") from error
    return results is not None and _become(node, results, edit)


def _become(node: ir.Node, results: list[np.ndarray], edit: Editor) -> bool:
    if all(_is_given(output) for output in node.outputs):
        return False
    graph = _graph(node)
    for output, result in zip(list(node.outputs), results, strict=False):
        if output.dtype is not None and result.dtype != output.dtype.numpy():
            result = result.astype(output.dtype.numpy())
        if output.uses() or output.is_graph_output():
            result = np.ascontiguousarray(result) if result.ndim else result
            edit.replace_by_constant(output, edit.initializer(ir.Tensor(result), f"{output.name}_value", graph))
    return True


def _is_given(output: ir.Value) -> bool:
    """Whether this is the Identity that names a graph output after a constant."""
    node = output.producer()
    return node is not None and node.op_type == "Identity" and output.is_graph_output()


def _bytes(node: ir.Node) -> int:
    total = 0
    for output in node.outputs:
        dims = static_shape(output)
        if dims is not None and output.dtype is not None:
            total += math.prod(dims) * math.ceil(output.dtype.itemsize)
    return total


def _fold_new(edit: Editor) -> None:
    """Fold what an upgrade has put in a node's place; those nodes are typed and shaped already."""
    for node in list(edit.touched):
        if node.graph is not None and edit.made(node.outputs[0]):
            fold(node, edit)


def _graph(node: ir.Node) -> ir.Graph:
    assert node.graph is not None
    return node.graph


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol:
    (attribute,) = node.attributes.values()
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_float" | "value_floats":
            return ir.tensor(np.asarray(attribute.value, np.float32))
        case "value_int" | "value_ints":
            return ir.tensor(np.asarray(attribute.value, np.int64))
        case "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        case "value_strings":
            return ir.StringTensor([text.encode() for text in attribute.as_strings()], shape=ir.Shape([len(attribute.value)]))
    raise SourceError(
        f"Constant holds a {attribute.name}", where=f"node {node.name!r}", fix="export the model with dense constants"
    )


def _take_branch(node: ir.Node, name: str, edit: Editor, since: int | None) -> None:
    """Move the nodes of the branch in front of the If, and settle them there."""
    branch = node.attributes[name].as_graph()
    outer = _graph(node)
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        outer.register_initializer(value)
    results = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    outer.insert_before(node, nodes)
    for output, result in zip(list(node.outputs), results, strict=True):
        edit.replace(output, result)
    for inner in nodes:
        if inner.graph is outer:
            _settle(inner, edit, since)


def _if(node: ir.Node, edit: Editor, since: int | None) -> None:
    names = ("then_branch", "else_branch")
    failures: dict[str, SourceError] = {}
    for name in names:
        try:
            _walk(node.attributes[name].as_graph(), edit, since)
        except SourceError as error:
            failures[name] = error
    if len(failures) == 2:
        raise failures[names[0]]
    if failures:
        return _take_branch(node, names[0] if names[1] in failures else names[1], edit, None)
    branches = [node.attributes[name].as_graph() for name in names]
    for output, left, right in zip(node.outputs, branches[0].outputs, branches[1].outputs, strict=True):
        output.type = left.type or right.type
        one, other = facts.shape_of(left), facts.shape_of(right)
        if one is not None and other is not None and len(one) == len(other):
            infer.set_shape(output, _common(output, one, other))
    return None


def _loop(node: ir.Node, edit: Editor, since: int | None) -> None:
    body = node.attributes["body"].as_graph()
    trips, condition, *carried = node.inputs
    shape = facts.shape_of(trips) if trips is not None else None
    if any(isinstance(dim, int) and dim != 1 for dim in shape or ()):
        raise facts.does_not_fit(node, f"its number of turns has the shape {list(shape or ())}")
    count, go_on = body.inputs[:2]
    _declare(count, ir.DataType.INT64, ())
    edit.contents[count] = (f"{facts.identifier(count.name or '')}_turn",)  # so that Slice(x, i, i + 1) is known to take one
    _declare(go_on, ir.DataType.BOOL, ())
    _carry(carried, body.inputs[2:], body.outputs[1:], body, edit, since)
    for value, output, inner in zip([*carried, *node.outputs[len(carried) :]], node.outputs, body.outputs[1:], strict=False):
        _copy(inner, output)
        first, last = facts.shape_of(value) if value is not None else None, facts.shape_of(inner)
        if value in carried and first is not None and last is not None and len(first) == len(last):
            infer.set_shape(output, _common(output, first, last))  # there may be no turn at all
    always = condition is None or scalar(condition) == 1
    same = producer(body.outputs[0], "Identity")
    goes_on = scalar(body.outputs[0]) == 1 or body.outputs[0] is go_on or (same is not None and same.inputs[0] is go_on)
    fixed = always and is_constant(trips) and goes_on
    length = int(scalar(trips) or 0) if fixed else None
    _stack(node.outputs[len(carried) :], body.outputs[1 + len(carried) :], length)


def _scan(node: ir.Node, edit: Editor, since: int | None) -> None:
    body = node.attributes["body"].as_graph()
    number = node.attributes["num_scan_inputs"].as_int()
    states, scanned = node.inputs[: len(node.inputs) - number], node.inputs[len(node.inputs) - number :]
    axes = node.attributes.get_ints("scan_input_axes") or [0] * number
    length: int | str | None = None
    for value, inner, axis in zip(scanned, body.inputs[len(states) :], axes, strict=True):
        dims = facts.shape_of(value) if value is not None else None
        if value is not None and value.dtype is not None and dims is not None:
            axis %= len(dims)
            length = dims[axis]
            _declare(inner, value.dtype, dims[:axis] + dims[axis + 1 :])
    _carry(states, body.inputs, body.outputs, body, edit, since)
    for output, inner in zip(node.outputs[: len(states)], body.outputs, strict=False):
        _copy(inner, output)
    places = node.attributes.get_ints("scan_output_axes") or [0] * (len(node.outputs) - len(states))
    _stack(node.outputs[len(states) :], body.outputs[len(states) :], length, places)


_CONTROL_FLOW = {"If": _if, "Loop": _loop, "Scan": _scan}


def _carry(
    given: Sequence[ir.Value | None],
    inner: Sequence[ir.Value],
    results: Sequence[ir.Value],
    body: ir.Graph,
    edit: Editor,
    since: int | None,
) -> None:
    """Walk a body with the shapes of what it carries; a dimension that changes from turn to turn gets a name.

    Which ones change is found on copies: what the body itself folds has to be true of every turn.
    """
    carried = [(value, first, result) for value, first, result in zip(given, inner, results, strict=False) if value is not None]
    for value, first, _ in carried:
        _copy(value, first)
    while any(facts.shape_of(first) for _, first, _ in carried):
        after = _after_a_turn(body, [result for _, _, result in carried], edit, since)
        before = [facts.shape_of(first) for _, first, _ in carried]
        settled = [_over_turns(first, old, new) for (_, first, _), old, new in zip(carried, before, after, strict=True)]
        for (_, first, _), dims in zip(carried, settled, strict=True):
            if dims is None:
                first.shape = None
            else:
                infer.set_shape(first, dims)
        if settled == before:
            break
    _walk(body, edit, since)


def _after_a_turn(body: ir.Graph, results: Sequence[ir.Value], edit: Editor, since: int | None) -> list[facts.Dims | None]:
    """The shapes of some of a body's outputs, from what its inputs have now. The body stays as it is."""
    trial = body.clone(allow_outer_scope_values=True)
    for value, copy in zip(body.inputs, trial.inputs, strict=True):
        if value in edit.contents:
            edit.contents[copy] = edit.contents[value]
    _walk(trial, edit, since)
    places = [next(i for i, output in enumerate(body.outputs) if output is result) for result in results]
    shapes = [facts.shape_of(trial.outputs[place]) for place in places]
    release(trial)
    return shapes


def _over_turns(value: ir.Value, before: facts.Dims | None, after: facts.Dims | None) -> facts.Dims | None:
    """The shape that holds before and after a turn, None where not even the rank does."""
    if before is None or after is None or len(before) != len(after):
        return before if after is None else None
    return _common(value, before, after)


def _common(value: ir.Value, left: facts.Dims, right: facts.Dims) -> facts.Dims:
    name = facts.identifier(value.name or "value")
    return tuple(a if a == b else f"{name}_d{axis}" for axis, (a, b) in enumerate(zip(left, right, strict=True)))


def _stack(
    outputs: Sequence[ir.Value],
    inner: Sequence[ir.Value],
    length: int | str | None,
    axes: Sequence[int] | None = None,
) -> None:
    for place, (output, value) in enumerate(zip(outputs, inner, strict=False)):
        dims = facts.shape_of(value)
        if value.dtype is not None and dims is not None:
            axis = (axes[place] if axes else 0) % (len(dims) + 1)
            turns = length if length is not None else f"{facts.identifier(output.name or '')}_d{axis}"
            _declare(output, value.dtype, (*dims[:axis], turns, *dims[axis:]))


def _copy(source: ir.Value, target: ir.Value) -> None:
    target.type = source.type
    dims = facts.shape_of(source)
    if dims is not None:
        infer.set_shape(target, dims)


def _declare(value: ir.Value, dtype: ir.DataType, dims: facts.Dims) -> None:
    value.type = ir.TensorType(dtype)
    infer.set_shape(value, dims)


FOLD_RULES = {"*": [fold]}
