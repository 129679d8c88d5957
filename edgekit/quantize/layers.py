"""Which nodes a recipe keeps out of int8, by the names that each runtime knows them by."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.quantize.recipe import INT8, Recipe


def kept_values(hub: ir.Model, recipe: Recipe) -> dict[str, str]:
    """The values whose nodes are not int8, with their precision: those that the recipe names, and what a Relu or Clip alone makes
    of them. A node and the activation behind it are one operator in both runtimes, whichever of the two is named."""
    names = (str(value.name) for node in hub.graph for value in node.outputs if value.name)
    kept = {name: precision for name in names if (precision := recipe.precision_of(name)) != INT8}
    for node in hub.graph if kept else ():
        made, taken = str(node.outputs[0].name), node.inputs[0] if node.inputs else None
        if node.op_type in ("Relu", "Clip") and taken is not None and len(taken.consumers()) == 1:
            either = kept.get(made) or kept.get(str(taken.name))
            if either:
                kept[made] = kept[str(taken.name)] = either
    return kept


def names_below(hub: ir.Model, recipe: Recipe) -> Recipe:
    """The recipe with its layers spelled out for a compiler that makes several operators of a node: the results of all but the
    last are named after the node's, with a slash and a word behind it."""
    kept = kept_values(hub, recipe)
    layers = kept | {f"{name}/*": precision for name, precision in kept.items()}
    names = (str(value.name) for node in hub.graph for value in node.outputs)
    return recipe.with_layers(layers | {name: INT8 for name in names if name not in kept and layers} | kept)
