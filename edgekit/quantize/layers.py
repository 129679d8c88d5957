"""Which nodes a recipe keeps out of int8, and a graph in which they are as they were."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from edgekit.quantize.recipe import INT8, Recipe
from edgekit.quantize.weights import layer


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


def with_exact_layers(rounded: ir.Model, exact: ir.Model, kept: Container[str]) -> ir.Model:
    """A copy of `rounded` in which the layers that make the values in `kept` have the weights and biases of `exact`.

    Both are the same graph but for that.
    """
    result = rounded.clone()
    for node, original in zip(result.graph, exact.graph, strict=True):
        if node.outputs[0].name in kept:
            ours, theirs = layer(node), layer(original)
            if ours is not None and theirs is not None:
                ours.store(theirs.kernel)
                if ours.bias is not None and theirs.bias is not None:
                    ours.store_bias(theirs.bias)
    return result
