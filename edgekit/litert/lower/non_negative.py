"""Can an index be negative? Then it counts from the end, which LiteRT's kernels do not know.

A proof goes back through the nodes that make a value, as long as each keeps what is not negative so. An overflow is left out of
account. What the model is fed (token ids) may be taken to be non-negative: GATHER refuses others when it runs.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.layout import constant

_NEVER_NEGATIVE = frozenset("Abs And ArgMax ArgMin Exp NonMaxSuppression NonZero Not Relu Shape Sigmoid Size Sqrt".split())
_COMPARISONS = frozenset("Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Or Xor".split())
_OF_ALL = frozenset("Add Concat Div Mean Min Mul Sum".split())
_OF_FIRST = frozenset(
    "Cast Ceil CumSum Expand Flatten Floor Gather GatherElements GatherND Identity ReduceMax ReduceMin ReduceProd ReduceSum "
    "Reshape Round Slice Split Squeeze Tile Transpose Trilu Unsqueeze".split()
)
"""Operators whose result is not negative if all operands are not, or if the first is not."""
_UNSIGNED = (ir.DataType.BOOL, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64)
_DEPTH = 64  # nodes on one way back

_FED = "edgekit.fed"


def mark_as_fed(graph: ir.Graph) -> None:
    """The inputs of this graph are what a user feeds, not what a loop carries."""
    graph.meta[_FED] = True


def is_non_negative(value: ir.Value | None, *, trust_inputs: bool = False) -> bool:
    """Whether no element of a value can be negative; `trust_inputs` takes the model's inputs to be so."""
    return value is not None and _proved(value, trust_inputs, {}, _DEPTH)


def _proved(value: ir.Value, trust: bool, known: dict[ir.Value, bool], depth: int) -> bool:
    if value not in known:
        known[value] = False  # while it is looked at
        known[value] = depth > 0 and _look(value, trust, known, depth - 1)
    return known[value]


def _look(value: ir.Value, trust: bool, known: dict[ir.Value, bool], depth: int) -> bool:
    if value.dtype in _UNSIGNED:
        return True
    array, node = constant(value), value.producer()
    if array is not None:
        return bool((array >= 0).all())
    if node is None:
        return trust and value.is_graph_input() and value.graph is not None and _FED in value.graph.meta
    if node.domain not in ("", "ai.onnx"):
        return False

    def proved(*places: int) -> bool:
        operands = [node.inputs[i] if i < len(node.inputs) else None for i in places]
        return all(operand is not None and _proved(operand, trust, known, depth) for operand in operands)

    match node.op_type:
        case kind if kind in _NEVER_NEGATIVE or kind in _COMPARISONS:
            return True
        case "TopK" | "Unique" if value is not node.outputs[0]:
            return True  # places and counts
        case "TopK" | "Unique":
            return proved(0)
        case "Max":
            return any(proved(i) for i in range(len(node.inputs)))
        case "Range":
            return proved(0, 2)
        case "Where":
            return proved(1, 2)
        case "Mod":
            return proved(0) or (proved(1) and not node.attributes.get_int("fmod", 0))  # it has the divisor's sign
        case "Clip":
            return proved(0) or proved(1)  # the second is the lower bound
        case "Neg":
            return _is_at_most_zero(node.inputs[0])
        case kind if kind in _OF_ALL:
            return proved(*range(len(node.inputs)))
        case kind if kind in _OF_FIRST:
            return proved(0)
    return False


def _is_at_most_zero(value: ir.Value | None) -> bool:
    """Min(x, 0), as it is written for the distance to what lies behind."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Min":
        return False
    return any((array := constant(v)) is not None and (array <= 0).all() for v in node.inputs)
