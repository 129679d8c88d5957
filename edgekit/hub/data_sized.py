"""Operators whose result has a size that the contents of some input decide, and whether those depend on the model's data.

Resize(x, sizes)     sizes is an input of the model, or computed from one:    the size is known when the model runs
                     sizes is a constant, or computed from shapes alone:      it is not of this kind
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.facts import Contents, known_contents

_DECIDE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConstantOfShape", "NonZero", "Unique"), (0,)),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), (0,)),
    **dict.fromkeys(
        "AffineGrid CenterCropPad Compress DFT Expand OneHot Reshape Split Squeeze Tile TopK Unsqueeze".split(), (1,)
    ),
    **dict.fromkeys("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean".split(), (1,)),
    **dict.fromkeys("ReduceMin ReduceProd ReduceSum ReduceSumSquare".split(), (1,)),
    "Col2Im": (1, 2),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "NonMaxSuppression": (0, 1),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
}
"""Operator → the inputs whose contents decide sizes of its results."""


def is_data_sized(node: ir.Node, contents: Contents) -> bool:
    """Whether what an input of the model holds, and not its shape, decides a size of the node's results."""
    places = _DECIDE.get(node.op_type, ()) if node.domain == "" else ()
    deciding = [node.inputs[i] for i in places if i < len(node.inputs)]
    return any(known_contents(value, contents) is None and holds_data(value) for value in deciding)


def holds_data(value: ir.Value | None) -> bool:
    """Whether a value is computed from the contents of inputs, of the graph or of one around it; no value is not."""
    waiting = [value] if value is not None else []
    seen = set(waiting)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None:
            if value.const_value is None or value.is_graph_input():
                return True
            continue
        if node.op_type in ("Shape", "Size"):
            continue
        for operand in node.inputs:
            if operand is not None and operand not in seen:
                seen.add(operand)
                waiting.append(operand)
    return False
