"""Sequences and optionals whose elements are known become the tensors that they hold.

    1. SplitToSequence(x, sizes)              →  SequenceConstruct of the outputs of Split (squeezed where keepdims is 0)
    2. SequenceInsert, SequenceErase          →  SequenceConstruct of the elements after it
    3. SequenceAt(sequence, 2)                →  the element
    4. SequenceLength                         →  a constant
    5. ConcatFromSequence                     →  Concat (of Unsqueeze where new_axis is 1)
    6. OptionalHasElement                     →  true of a tensor, false where nothing is given
    7. OptionalGetElement(x | Optional(x))    →  x

A position that is computed, a split along an axis of unknown size, a sequence or an optional that is an input of the graph or
comes out of an If or a Loop: left alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, integers, producer, shape


def split_to_sequence(node: ir.Node, edit: Editor) -> bool:
    """Case 1."""
    data, given = node.inputs[0], _input(node, 1)
    known = shape(data)
    if known is None:
        return False
    axis = node.attributes.get_int("axis", 0) % len(known)
    assert node.graph is not None
    name = node.outputs[0].name or ""
    count, sizes = _parts(known[axis], given)
    if not count:
        return False
    if sizes is not None:
        given = edit.constant(np.array(sizes, np.int64), f"{name}_split", node.graph)
    parts: list[ir.Value] = list(edit.node("Split", [data, given], {"axis": axis}, before=node, outputs=count).outputs)
    if _input(node, 1) is None and not node.attributes.get_int("keepdims", 1):
        axes = edit.constant(np.array([axis], np.int64), f"{name}_axis", node.graph)
        parts = [edit.op("Squeeze", [part, axes], before=node) for part in parts]
    return edit.replace(node.outputs[0], edit.op("SequenceConstruct", parts, before=node))


def _parts(size: int | str, given: ir.Value | None) -> tuple[int, list[int] | None]:
    """How many parts there are (0 where that is not known), and their sizes where `given` does not have them already."""
    dims = shape(given) if given is not None else ()
    if dims is None:
        return 0, None
    if dims:  # a size for each part
        return (dims[0], None) if isinstance(dims[0], int) else (0, None)
    chunk = integers(given) if given is not None else [1]
    if chunk is None or not isinstance(size, int) or chunk[0] < 1:
        return 0, None
    sizes = [min(chunk[0], size - start) for start in range(0, size, chunk[0])]
    return len(sizes), sizes


def change_sequence(node: ir.Node, edit: Editor) -> bool:
    """Case 2."""
    elements, inserts = _elements(node.inputs[0]), node.op_type == "SequenceInsert"
    if elements is None:
        return False
    place = _place(_input(node, 2 if inserts else 1), elements, len(elements) - (not inserts))
    if place is None:
        return False
    if inserts:
        assert node.inputs[1] is not None
        elements.insert(place, node.inputs[1])
    else:
        elements.pop(place)
    if not elements:
        return False  # ONNX has no SequenceConstruct of nothing
    return edit.replace(node.outputs[0], edit.op("SequenceConstruct", elements, before=node))


def sequence_at(node: ir.Node, edit: Editor) -> bool:
    """Case 3."""
    elements = _elements(node.inputs[0])
    place = _place(node.inputs[1], elements, len(elements) - 1) if elements else None
    return elements is not None and place is not None and edit.replace(node.outputs[0], elements[place])


def sequence_length(node: ir.Node, edit: Editor) -> bool:
    """Case 4."""
    elements = _elements(node.inputs[0])
    return elements is not None and _constant(node, np.array(len(elements), np.int64), edit)


def concat_from_sequence(node: ir.Node, edit: Editor) -> bool:
    """Case 5."""
    elements, axis = _elements(node.inputs[0]), node.attributes["axis"].as_int()
    if not elements:
        return False
    if node.attributes.get_int("new_axis", 0):
        assert node.graph is not None
        axes = edit.constant(np.array([axis], np.int64), f"{node.outputs[0].name}_axis", node.graph)
        elements = [edit.op("Unsqueeze", [element, axes], before=node) for element in elements]
    return edit.replace(node.outputs[0], edit.op("Concat", elements, {"axis": axis}, before=node))


def optional_has_element(node: ir.Node, edit: Editor) -> bool:
    """Case 6."""
    data = _input(node, 0)
    maker = producer(data, "Optional")
    if maker is not None:
        data = _input(maker, 0)
    elif data is not None and isinstance(data.type, ir.OptionalType):
        return False
    return _constant(node, np.array(data is not None), edit)


def optional_get_element(node: ir.Node, edit: Editor) -> bool:
    """Case 7."""
    data = _input(node, 0)
    maker = producer(data, "Optional")
    if maker is not None:
        data = _input(maker, 0)
    if data is None or isinstance(data.type, ir.OptionalType):
        return False
    return edit.replace(node.outputs[0], data)


def _elements(value: ir.Value | None) -> list[ir.Value] | None:
    """What a sequence holds, None where that is not known."""
    maker = producer(value, "SequenceConstruct", "SequenceEmpty")
    return None if maker is None else [element for element in maker.inputs if element is not None]


def _place(value: ir.Value | None, elements: list[ir.Value], last: int) -> int | None:
    """A position in 0 … last, the last one where it is not given; None where it is computed or outside.

    A negative one counts from the end of the sequence as it is: -1 inserts before the last element.
    """
    found = integers(value) if value is not None else [last]
    if not found or not -len(elements) <= found[0] <= last:
        return None
    return found[0] % len(elements) if found[0] < 0 else found[0]


def _constant(node: ir.Node, array: np.ndarray, edit: Editor) -> bool:
    assert node.graph is not None
    name = f"{node.outputs[0].name}_known"
    return edit.replace_by_constant(node.outputs[0], edit.constant(array, name, node.graph))


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if len(node.inputs) > place else None


RULES = {
    "SplitToSequence": [split_to_sequence],
    "SequenceInsert": [change_sequence],
    "SequenceErase": [change_sequence],
    "SequenceAt": [sequence_at],
    "SequenceLength": [sequence_length],
    "ConcatFromSequence": [concat_from_sequence],
    "OptionalHasElement": [optional_has_element],
    "OptionalGetElement": [optional_get_element],
}
