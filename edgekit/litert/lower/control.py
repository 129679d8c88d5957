"""Branches and loops: If, Loop and Scan as IF and WHILE with subgraphs.

A LiteRT subgraph sees its operands only. So what the graphs of a node take from outside becomes operands of the node, after its
own inputs (`close_over`), and each graph then is a small model that goes through the compiler's pipeline by itself.

What a loop carries may change its sizes from turn to turn, not its number of axes: WHILE takes the sizes of what its body makes
(tensorflow/lite/kernels/while.cc).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from edgekit.litert.graph import Dim, Graph, Operator, Tensor
from edgekit.litert.lower.table import Node, lowers

Step = Callable[[Node, list[Tensor]], list[Tensor]]
Condition = Callable[[Node, list[Tensor]], Tensor]

INT64 = np.dtype(np.int64)

MOST_BUFFER = 1 << 24
"""Bytes that a scan output is given room for in advance where a loop may end before they are filled."""


@lowers("If")
def if_(node: Node) -> None:
    """IF; both branches take everything that either of them captures."""
    captured = node.inputs[len(node.onnx.inputs) :]
    then, otherwise = (lower_body(node.onnx.attributes[name].as_graph()) for name in ("then_branch", "else_branch"))
    node.emit("IF", [node.x, *captured], node.outputs, thenSubgraphIndex=then, elseSubgraphIndex=otherwise)


@lowers("Loop")
def loop(node: Node) -> None:
    """WHILE over (iteration, condition, carried values, scan outputs, captured values).

    The condition is not carried where it is always true. A scan output is a buffer for all iterations that each fills one row of,
    cut where they end early; without a number of iterations that is known and fits memory, each appends its row.
    """
    body = node.onnx.attributes["body"].as_graph()
    own = len(node.onnx.inputs)
    states = [node.input(i) for i in range(2, own)]
    captured = [node.input(i) for i in range(own, len(node.inputs))]
    limit = node.inputs[0] if node.has_input(0) else None
    given = node.inputs[1] if node.has_input(1) else None
    endless = _always_true(body, given)
    if endless and limit is None:
        raise node.refuse("it has neither a trip count nor a condition that can become false", "give it one of them", "M")
    lowered = lower_body(body)
    shapes = _carried_shapes(node, lowered.inputs[2 : 2 + len(states)], lowered.outputs[1 : 1 + len(states)], states)
    elements, rows = lowered.outputs[1 + len(states) :], _known_count(limit)
    grows = [rows is None or not (endless or _bytes(node, element) * rows <= MOST_BUFFER) for element in elements]
    for element, more in zip(elements, grows, strict=True):
        if more and sum(not isinstance(d, int) for d in element.shape) > 1:
            node.static_shape(element)  # which refuses it: at most one dimension can be found from the others
    buffers = [
        zeros(node, (1,), element.dtype, f"buffer{i}") if more else _buffer(node, element, rows or 0, 0, i)
        for i, (element, more) in enumerate(zip(elements, grows, strict=True))
    ]

    conditions = [] if endless else [given if given is not None else node.const(True, bool, "true")]
    start = [node.const(0, INT64, "first"), *conditions, *states, *buffers, *([limit] if limit is not None else []), *captured]
    at = 1 + len(conditions), 1 + len(conditions) + len(states), 1 + len(conditions) + len(states) + len(buffers)

    def condition(n: Node, values: list[Tensor]) -> Tensor:
        if limit is None:
            return values[1]
        count = n.reshape(values[at[2]], (), "limit")
        below = n.emit("LESS", [values[0], count], n.temp((), "below", bool))
        if endless:
            return below
        return n.emit("LOGICAL_AND", [below, n.reshape(values[1], (), "go")], n.temp((), "go_on", bool))

    def step(n: Node, values: list[Tensor]) -> list[Tensor]:
        iteration = n.reshape(values[0], lowered.inputs[0].shape, "iteration")
        going = n.const(True, bool, "true") if endless else values[1]
        arguments = [iteration, going, *values[at[0] : at[1]], *values[len(values) - len(captured) :]]
        results = inline(n, lowered, arguments)
        seen = zip(values[at[1] : at[2]], results[1 + len(states) :], grows, strict=True)
        filled = [
            (_append(n, buffer, element, i) if more else _fill_row(n, buffer, element, values[0], 0, f"scan{i}"))
            for i, (buffer, element, more) in enumerate(seen)
        ]
        following = n.emit("ADD", [values[0], n.const(1, INT64, "one")], n.temp((), "next", INT64))
        return [following, *results[: len(conditions)], *results[1 : 1 + len(states)], *filled, *values[at[2] :]]

    sizes = dict(enumerate(shapes, at[0]))
    sizes |= {at[1] + i: (f"{b.name}_size",) for i, b in enumerate(buffers) if grows[i]}
    cut = {at[1] + i: out for i, out in enumerate(node.outputs[len(states) :]) if grows[i] or not endless}
    whole = {at[0] + i: out for i, out in enumerate(node.outputs) if at[0] + i not in cut}
    ends = while_loop(node, start, condition, step, whole, shapes=sizes)
    for place, out in cut.items():
        i = place - at[1]
        if grows[i]:
            _stacked(node, ends[place], elements[i], ends[0], out)
        else:
            _first_rows(node, ends[place], ends[0], out)


@lowers("Scan")
def scan(node: Node) -> None:
    """WHILE over (step, carried values, scan outputs, scan inputs, captured values): each step gathers one slice of every scan
    input and fills one of every scan output."""
    body = node.onnx.attributes["body"].as_graph()
    own, count = len(node.onnx.inputs), node.integer("num_scan_inputs")
    given = [node.input(i) for i in range(own)]
    captured = [node.input(i) for i in range(own, len(node.inputs))]
    lowered = lower_body(body)
    if len(lowered.inputs) != len(node.inputs):
        raise node.refuse("its inputs are those of opset 8", "convert the model to opset 9 or later", "sequence_lens")
    states, sequences = given[: own - count], given[own - count :]
    _carried_shapes(node, lowered.inputs[: len(states)], lowered.outputs[: len(states)], states)
    elements = lowered.outputs[len(states) :]
    in_axes = [a % s.rank for a, s in zip(node.integers("scan_input_axes", [0] * count), sequences, strict=True)]
    out_axes = [a % (e.rank + 1) for a, e in zip(node.integers("scan_output_axes", [0] * len(elements)), elements, strict=True)]
    in_backwards = node.integers("scan_input_directions", [0] * count)
    out_backwards = node.integers("scan_output_directions", [0] * len(elements))
    steps = node.static_shape(sequences[0])[in_axes[0]]
    buffers = [_buffer(node, e, steps, axis, i) for i, (e, axis) in enumerate(zip(elements, out_axes, strict=True))]
    start = [node.const(0, INT64, "first"), *states, *buffers, *sequences, *captured]
    first_buffer = 1 + len(states)
    first_sequence = first_buffer + len(buffers)

    def condition(n: Node, values: list[Tensor]) -> Tensor:
        return n.emit("LESS", [values[0], n.const(steps, INT64, "steps")], n.temp((), "below", bool))

    def step(n: Node, values: list[Tensor]) -> list[Tensor]:
        forwards = values[0]

        def place(backwards: int, hint: str) -> Tensor:
            if not backwards:
                return forwards
            return n.emit("SUB", [n.const(steps - 1, INT64, f"{hint}/last"), forwards], n.temp((), f"{hint}/place", INT64))

        slices = []
        for i, (axis, backwards) in enumerate(zip(in_axes, in_backwards, strict=True)):
            whole = values[first_sequence + i]
            shape = (*whole.shape[:axis], *whole.shape[axis + 1 :])
            out = n.temp(shape, f"slice{i}", whole.dtype)
            slices.append(n.emit("GATHER", [whole, place(backwards, f"slice{i}")], out, axis=axis, batchDims=0))
        rest = values[first_sequence + count :]
        results = inline(n, lowered, [*values[1:first_buffer], *slices, *rest])
        filled = [
            _fill_row(n, values[first_buffer + i], element, place(out_backwards[i], f"scan{i}"), out_axes[i], f"scan{i}")
            for i, element in enumerate(results[len(states) :])
        ]
        following = n.emit("ADD", [forwards, n.const(1, INT64, "one")], n.temp((), "next", INT64))
        return [following, *results[: len(states)], *filled, *values[first_sequence:]]

    while_loop(node, start, condition, step, {1 + i: out for i, out in enumerate(node.outputs)})


def lower_body(body: ir.Graph) -> Graph:
    """A self-contained graph of a node through the compiler's pipeline; its inputs and outputs are in ONNX's order of axes."""
    from edgekit.litert.pipeline import to_litert  # which imports this module

    graph, _, _ = to_litert(ir.Model(body, ir_version=10))
    graph.outputs = _constants_themselves(graph)
    return graph


def while_loop(
    node: Node,
    start: Sequence[Tensor],
    condition: Condition,
    step: Step,
    results: dict[int, Tensor] | None = None,
    hint: str = "",
    shapes: Mapping[int, tuple[Dim, ...]] = MappingProxyType({}),
) -> list[Tensor]:
    """Append a WHILE.

    Args:
        start: What the loop variables begin with.
        condition: Emits the test for another iteration, a bool scalar, of the loop variables.
        step: Emits one iteration and returns the next values. A variable that it returns as it is costs nothing: the kernel
            (tensorflow/lite/kernels/while.cc) copies between different tensors only.
        results: The tensors for the final values of some variables, by number.
        hint: Tells several loops of one node apart.
        shapes: Those of the variables, by number, that are not of the shape that they begin with.

    Returns:
        The final values of all loop variables.
    """
    results = results or {}
    prefix = f"{hint}/" if hint else ""
    name = f"{node.y.name}/{prefix}"

    def variables(part: str) -> list[Tensor]:
        return [Tensor(f"{name}{part}/{i}", shapes.get(i, t.shape), t.dtype) for i, t in enumerate(start)]

    test = Node(node.onnx, node.inputs, node.outputs, Graph(f"{name}while_condition", variables("condition"), []))
    test.graph.outputs = _made_inside(test, [condition(test, test.graph.inputs)], [])
    body = Node(node.onnx, node.inputs, node.outputs, Graph(f"{name}while_body", variables("body"), []))
    body.graph.outputs = _made_inside(body, step(body, body.graph.inputs), body.graph.inputs)
    ends = [results.get(i) or Tensor(f"{name}end/{i}", shapes.get(i, t.shape), t.dtype) for i, t in enumerate(start)]
    node.emit("WHILE", start, ends, condSubgraphIndex=test.graph, bodySubgraphIndex=body.graph)
    return ends


def inline(node: Node, graph: Graph, arguments: Sequence[Tensor]) -> list[Tensor]:
    """Append the operators of a graph that is used nowhere else, on these arguments. Returns its outputs."""
    known = dict(zip(graph.inputs, arguments, strict=True))
    for op in graph.operators:
        inputs = [None if t is None else known.get(t, t) for t in op.inputs]
        node.graph.operators.append(Operator(op.code, inputs, op.outputs, op.options))
    return [known.get(t, t) for t in graph.outputs]


def _constants_themselves(graph: Graph) -> list[Tensor]:
    """The outputs, where a copy of a constant is the constant.

    RESHAPE of a constant makes a tensor that lives as long as the interpreter; as an output of an IF branch it corrupts the heap
    (ai-edge-litert 2.3.0).
    """
    made = graph.producers()
    outputs: list[Tensor] = []
    for out in graph.outputs:
        op = made.get(out)
        data = op.inputs[0].data if op is not None and op.code == "RESHAPE" and op.inputs[0] is not None else None
        outputs.append(out if data is None else Tensor(out.name, out.shape, out.dtype, data.reshape([int(d) for d in out.shape])))
    return outputs


def _made_inside(node: Node, values: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
    """Outputs that operators make or that are constants, but for variables that stay in their place.

    The kernel copies outputs to inputs one after the other: a variable returned in another's place could be overwritten before it
    is read.
    """
    made = {out for op in node.graph.operators for out in op.outputs}
    outputs: list[Tensor] = []
    for i, value in enumerate(values):
        stays = i < len(kept) and value is kept[i]
        if not stays and value.data is None and (value not in made or value in outputs):
            out = node.like(value, f"copy{i}")
            value = node.reshape(value, value.shape, out=out)
        outputs.append(value)
    return outputs


def _always_true(body: ir.Graph, given: Tensor | None) -> bool:
    """Whether a Loop's condition is true from the start, and each iteration says true or passes it on."""
    if given is not None and (given.data is None or not given.data.all()):
        return False
    value: ir.Value | None = body.outputs[0]
    while value is not None and value.producer() is not None and value.producer().op_type == "Identity":  # type: ignore[union-attr]
        value = value.producer().inputs[0]  # type: ignore[union-attr]
    if value is None or value is body.inputs[1]:
        return True
    return value.const_value is not None and bool(value.const_value.numpy().all())


def _known_count(limit: Tensor | None) -> int | None:
    return None if limit is None or limit.data is None else max(0, int(limit.data.reshape(-1)[0]))


def _carried_shapes(
    node: Node, inputs: Sequence[Tensor], outputs: Sequence[Tensor], states: Sequence[Tensor]
) -> list[tuple[Dim, ...]]:
    """What holds in every iteration: the shapes that the body was lowered for."""
    for i, (before, after, state) in enumerate(zip(inputs, outputs, states, strict=True)):
        ranks, dtypes = {before.rank, after.rank, state.rank}, {after.dtype, state.dtype}
        changes = ranks == {before.rank} and any(
            isinstance(d, int) and isinstance(other, int) and d != other
            for t in (after, state)
            for d, other in zip(before.shape, t.shape, strict=True)
        )
        if 0 in state.shape and before.shape != state.shape:
            raise node.refuse(
                f"its carried value {i} begins without elements, on which WHILE may fail",
                "begin with one row, and cut it off after the loop",
                f"carried value {i}",
            )
        if len(ranks) > 1 or len(dtypes) > 1 or changes:
            raise node.refuse(
                f"its carried value {i} is {state.shape} {state.dtype}, then {after.shape} {after.dtype} after an iteration",
                "give the carried values of the loop one rank and dtype",
                f"carried value {i}",
            )
    return [t.shape for t in inputs]


def _bytes(node: Node, element: Tensor) -> int:
    return math.prod(node.static_shape(element)) * element.dtype.itemsize


def _buffer(node: Node, element: Tensor, count: int, axis: int, number: int) -> Tensor:
    """Room for `count` elements, side by side along `axis`."""
    shape = list(node.static_shape(element))
    shape.insert(axis, count)
    return zeros(node, shape, element.dtype, f"buffer{number}")


def zeros(node: Node, shape: Sequence[int], dtype: np.dtype, hint: str) -> Tensor:
    """A tensor of zeros that takes no room in the file."""
    fill = node.const(0, dtype, f"{hint}/zero")
    return node.emit("FILL", [node.ints(shape, f"{hint}/shape"), fill], node.temp(shape, hint, dtype))


def _fill_row(node: Node, buffer: Tensor, element: Tensor, place: Tensor, axis: int, hint: str) -> Tensor:
    row: list[Dim] = list(element.shape)
    row.insert(axis, 1)
    return update_slice(node, buffer, node.reshape(element, row, f"{hint}/row"), place, axis, hint)


def _append(node: Node, buffer: Tensor, element: Tensor, number: int) -> Tensor:
    """All elements so far in one vector, which begins with one of no meaning: WHILE may fail on a tensor without elements."""
    size = math.prod(element.shape) if element.is_static else f"{element.name}_size"  # type: ignore[arg-type]
    flat = node.reshape(element, (size,), f"scan{number}/flat")
    grown = node.temp((f"{buffer.name}_grown",), f"scan{number}/grown", buffer.dtype)
    return node.emit("CONCATENATION", [buffer, flat], grown, axis=0)


def _stacked(node: Node, buffer: Tensor, element: Tensor, count: Tensor, out: Tensor) -> None:
    """What was appended, as one row for each iteration."""
    inputs = [buffer, node.ints([1], "begin"), node.ints([-1], "size")]
    made = node.emit("SLICE", inputs, node.temp((f"{buffer.name}_all",), "all", buffer.dtype))
    if element.is_static:
        target = node.ints([-1, *node.static_shape(element)], "shape")
    else:
        target = _packed(node, count, [d if isinstance(d, int) else -1 for d in element.shape], "shape")
    node.emit("RESHAPE", [made, target], out)


def _first_rows(node: Node, buffer: Tensor, count: Tensor, out: Tensor) -> None:
    """As many rows of a buffer as there were iterations."""
    size = _packed(node, count, [-1] * (buffer.rank - 1), "size")
    node.emit("SLICE", [buffer, node.ints([0] * buffer.rank, "begin"), size], out)


def _packed(node: Node, count: Tensor, rest: Sequence[int], hint: str) -> Tensor:
    """A vector of a computed number and known ones, as int32."""
    first = node.emit("CAST", [count], node.temp((), f"{hint}/0", np.int32), inDataType=INT64, outDataType=np.dtype(np.int32))
    parts = [first, *(node.const(number, np.int32, f"{hint}/{i}") for i, number in enumerate(rest, 1))]
    return node.emit("PACK", parts, node.temp((len(parts),), hint, np.int32), valuesCount=len(parts), axis=0)


def update_slice(node: Node, buffer: Tensor, part: Tensor, place: Tensor, axis: int, hint: str) -> Tensor:
    """The buffer with `part` written from index `place` (a scalar) along `axis`."""
    begin = start_at(node, place, axis, buffer.rank, hint)
    return node.emit("DYNAMIC_UPDATE_SLICE", [buffer, part, begin], node.like(buffer, f"{hint}/filled"))


def start_at(node: Node, place: Tensor, axis: int, rank: int, hint: str) -> Tensor:
    """The vector (0, …, place, …, 0) of int32, as the begin of a slice."""
    if place.dtype != np.int32:
        out = node.temp((), f"{hint}/place32", np.int32)
        place = node.emit("CAST", [place], out, inDataType=place.dtype, outDataType=np.dtype(np.int32))
    parts = [place if i == axis else node.const(0, np.int32, f"{hint}/zero") for i in range(rank)]
    return node.emit("PACK", parts, node.temp((rank,), f"{hint}/begin", np.int32), valuesCount=rank, axis=0)
