"""The compiler from the hub graph to a LiteRT graph, as a list of passes; the bodies of If, Loop and Scan take the same way."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.layout import HeldAs, to_channels_last
from edgekit.litert.attention_biases import remove_attention_biases
from edgekit.litert.carry import carry_floats
from edgekit.litert.decompose import decompose, has_lowering
from edgekit.litert.expand import expand
from edgekit.litert.fold_norms import fold_norms
from edgekit.litert.graph import Graph
from edgekit.litert.group_norms import recognize_group_norms
from edgekit.litert.group_statistics import merge_group_statistics
from edgekit.litert.head_projections import project_heads
from edgekit.litert.lower import lower
from edgekit.litert.quantized.prepare import prepare_quantized, reshape_quantized_constants
from edgekit.litert.safe_softmax import simplify_safe_softmax
from edgekit.litert.split_projections import split_projections
from edgekit.litert.token_projections import project_tokens


def to_litert(model: ir.Model, *, input_layout: str = "keep", output_layout: str = "keep") -> tuple[Graph, HeldAs, list[str]]:
    """Rewrite an ONNX model for LiteRT, in place, and lower it.

    Returns:
        The graph as lowered (kernels not yet fitted, nothing fused), how its inputs and outputs are held, and notes.
    """
    notes = prepare_quantized(model)
    expand(model, has_lowering)
    notes += carry_floats(model)
    simplify_safe_softmax(model)
    recognize_group_norms(model)
    merge_group_statistics(model)
    fold_norms(model)
    project_tokens(model)
    split_projections(model)
    remove_attention_biases(model)
    project_heads(model)
    decompose(model)
    reshape_quantized_constants(model)
    held = to_channels_last(model, input_layout=input_layout, output_layout=output_layout)
    return lower(model.graph), held, notes
