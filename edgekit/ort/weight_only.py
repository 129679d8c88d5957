"""INT8 and INT4 weights, computed in float32: smaller files, not faster ones.

int8-weights, before:  Conv(x, weights float32)     after:  Cast(int8) → Mul(·, a scale per channel) → Conv(x, ·)
                       Gather(table float32, i)     after:  Mul(Cast(Gather(int8, i)), Gather(a scale per row, i))
int4-weights, before:  MatMul(x, weights)           after:  com.microsoft:MatMulNBits(x, 4-bit integers, a scale per 32 of them)
                       Gather(table, i)             after:  com.microsoft:GatherBlockQuantized(int4, i, a scale per 32 of them)

onnxruntime folds a Cast and Mul of constants when it loads the file, after which nothing differs from float32. (It does not fold
a DequantizeLinear, and expands the weights again in each run: MobileNetV2 takes twice as long.) A table stays as it is in memory,
and so does an int4 matrix, which is multiplied by x in 8 bits, with ranges that are found in each run. There is no 4-bit
convolution: those and all that 4 bits are too coarse for are as in int8-weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.ort.model import clean
from edgekit.quantize.stored import BLOCK, in_blocks, is_worthwhile, nothing_to_store, packed, per_channel

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"
IR_WITH_INT4 = 10

# Where the weights of an operator are, and the axis of their output channels.
_CHANNELS = {
    "Conv": ((1, 0),),
    "ConvTranspose": ((1, 1),),
    "GRU": ((1, 1), (2, 1)),
    "LSTM": ((1, 1), (2, 1)),
    "RNN": ((1, 1), (2, 1)),
}


def to_stored_weights(model: onnx.ModelProto, precision: str) -> tuple[bytes, list[str]]:
    """The model with its weights in 8 bits, or in 4 with `int4-weights`; and notes on which. `model` is changed.

    Raises:
        QuantizeError: There are no weights to store so.
    """
    work = _Work(model, precision)
    work.rewrite(model.graph)
    if not (work.four_bits if precision == "int4-weights" else work.stored):
        raise nothing_to_store(precision)
    work.add_constants()
    model.ir_version = max(model.ir_version, IR_WITH_INT4)
    if work.four_bits and all(opset.domain != MICROSOFT for opset in model.opset_import):
        model.opset_import.add(domain=MICROSOFT, version=1)
    notes = [f"in 4 bits: {_listed(work.four_bits)}; other weights in 8"] if work.four_bits else []
    left = Counter(node.op_type for node in _nodes(model.graph) if work.has_float_weights(node))
    notes += [f"weights in float: {_listed(left)}"] if left else []
    return clean(model).SerializeToString(deterministic=True), notes


class _Work:
    """The constants of a model, and what becomes of them."""

    def __init__(self, model: onnx.ModelProto, precision: str) -> None:
        self.stored: set[str] = set()
        self.four_bits: Counter[str] = Counter()
        self._four = precision == "int4-weights"
        self._model = model
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._names = set(self._tensors) | {name for node in _nodes(model.graph) for name in (*node.input, *node.output)}
        self._made: dict[str, np.ndarray] = {}
        self._int4: dict[str, tuple[int, ...]] = {}
        self._expanded: dict[tuple[str, int], str] = {}
        self._expanding: list[onnx.NodeProto] = []
        self._blocks: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray] | None] = {}

    def rewrite(self, graph: onnx.GraphProto) -> None:
        """Store the weights of a graph's nodes, those in the bodies of loops and branches included."""
        for node in graph.node:
            for inner in _inside(node):
                self.rewrite(inner)
        _replace_nodes(graph, [made for node in graph.node for made in self._rewritten(node)])

    def _rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == "Gather" and self._is_lookup(node):
            yield from self._lookup(node)
            return
        if self._four and (product := self._product(node)) is not None:
            yield from product
            return
        for place, axis in self._places(node):
            if self._is_worthwhile(node.input[place], axis):
                node.input[place] = self._expand(node.input[place], axis)
        yield node

    def add_constants(self) -> None:
        """Put in the integers, their scales and what expands them, and take out the constants that nothing uses any more.

        Weights are expanded in the model itself, also where the body of a loop uses them: once.
        """
        from onnx import TensorProto, helper, numpy_helper

        _replace_nodes(self._model.graph, [*self._expanding, *self._model.graph.node])
        used = {name for node in _nodes(self._model.graph) for name in node.input}
        used |= {value.name for graph in _graphs(self._model.graph) for value in graph.output}
        kept = [tensor for tensor in self._model.graph.initializer if tensor.name in used or tensor.name not in self.stored]
        kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(kept)
        for name, array in self._made.items():
            if name in self._int4:
                tensor = helper.make_tensor(name, TensorProto.INT4, self._int4[name], array.tobytes(), raw=True)
            else:
                tensor = numpy_helper.from_array(array, name)
            self._model.graph.initializer.append(tensor)

    def has_float_weights(self, node: onnx.NodeProto) -> bool:
        """Whether it has float32 weights that would be smaller as integers."""
        return any(self._is_worthwhile(node.input[place], axis) for place, axis in self._places(node))

    def _places(self, node: onnx.NodeProto) -> tuple[tuple[int, int], ...]:
        if node.op_type == "Gemm":
            return ((1, 0 if _attribute(node, "transB", 0) else 1),)
        if node.op_type == "MatMul":
            return tuple(
                (i, len(self._tensors[name].dims) - 1 if i else 0) for i, name in enumerate(node.input) if name in self._tensors
            )
        return _CHANNELS.get(node.op_type, ())

    def _expand(self, name: str, axis: int) -> str:
        """The value that a constant has in float, out of its integers."""
        from onnx import TensorProto, helper

        if (name, axis) not in self._expanded:
            array = self._array(name)
            integers, scales = per_channel(array, axis)
            steps = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
            held, scale = self._constant(f"{name}/int8", integers), self._constant(f"{name}/scale", steps)
            cast, made = self._name(f"{name}/cast"), self._name(f"{name}/expanded")
            self._expanding.append(helper.make_node("Cast", [held], [cast], to=TensorProto.FLOAT))
            self._expanding.append(helper.make_node("Mul", [cast, scale], [made]))
            self._expanded[name, axis] = made
            self.stored.add(name)
        return self._expanded[name, axis]

    def _is_lookup(self, node: onnx.NodeProto) -> bool:
        table, index = node.input
        is_table = table in self._tensors and len(self._tensors[table].dims) == 2 and index not in self._tensors
        return is_table and _attribute(node, "axis", 0) == 0 and self._is_worthwhile(table, 0)

    def _lookup(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        from onnx import TensorProto, helper

        table, index = node.input
        self.stored.add(table)
        found = self._in_blocks(table, transposed=False) if self._four else None
        if found is not None:
            self.four_bits["Gather"] += 1
            held = self._constant(f"{table}/int4", packed(found[0]))
            self._int4[held] = found[0].shape
            scale = self._constant(f"{table}/scales", found[1])
            options: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK}
            yield helper.make_node(
                "GatherBlockQuantized", [held, index, scale], node.output, node.name, domain=MICROSOFT, **options
            )
            return
        integers, scales = per_channel(self._array(table), 0)
        held, scale = self._constant(f"{table}/int8", integers), self._constant(f"{table}/scale", scales[:, None])
        picked, cast, factor = (self._name(f"{node.output[0]}/{part}") for part in ("int8", "cast", "scale"))
        yield helper.make_node("Gather", [held, index], [picked], node.name)
        yield helper.make_node("Gather", [scale, index], [factor])
        yield helper.make_node("Cast", [picked], [cast], to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [cast, factor], node.output)

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """A MatMul or Gemm by a matrix in 4 bits, or None where it is something else."""
        from onnx import helper

        plain = node.op_type == "Gemm" and _attribute(node, "transA", 0) == 0
        plain = plain and all(_attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not (plain or node.op_type == "MatMul") or node.input[1] not in self._tensors:
            return None
        name = node.input[1]
        transposed = not _attribute(node, "transB", 0)
        if len(self._tensors[name].dims) != 2 or not self._is_worthwhile(name, int(transposed)):
            return None
        found = self._in_blocks(name, transposed=transposed)
        if found is None:
            return None
        integers, scales = found
        count, width = integers.shape
        self.stored.add(name)
        self.four_bits[node.op_type] += 1
        held = self._constant(f"{name}/int4", packed((integers + 8).astype(np.int8)).reshape(count, width // BLOCK, BLOCK // 2))
        bias = [name for name in node.input[2:] if name]
        result = self._name(f"{node.output[0]}/product") if bias else node.output[0]
        # Level 4: x in 8 bits, as LiteRT does it and as ARM multiplies fastest.
        options: dict[str, Any] = {"K": width, "N": count, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
        operands = [node.input[0], held, self._constant(f"{name}/scales", scales)]
        made = [helper.make_node("MatMulNBits", operands, [result], node.name, domain=MICROSOFT, **options)]
        return [*made, helper.make_node("Add", [result, *bias], node.output)] if bias else made

    def _in_blocks(self, name: str, *, transposed: bool) -> tuple[np.ndarray, np.ndarray] | None:
        if (name, transposed) not in self._blocks:
            array = self._array(name)
            self._blocks[name, transposed] = in_blocks(np.ascontiguousarray(array.T) if transposed else array)
        return self._blocks[name, transposed]

    def _is_worthwhile(self, name: str, axis: int) -> bool:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type != tensor.FLOAT or len(tensor.dims) < 2 or not is_worthwhile(tensor.dims, axis):
            return False
        return bool(np.isfinite(self._array(name)).all())

    def _array(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(self._tensors[name])

    def _constant(self, name: str, array: np.ndarray) -> str:
        """An initializer of that name and content; the one that there is already, where it is the same."""
        if name in self._made and np.array_equal(self._made[name], array):
            return name
        name = self._name(name)
        self._made[name] = array
        return name

    def _name(self, name: str) -> str:
        """The name, or one like it that nothing has."""
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are inside of its nodes."""
    yield graph
    for node in graph.node:
        for inner in _inside(node):
            yield from _graphs(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for each in _graphs(graph) for node in each.node)


def _inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()) if count)
