"""float16 weights and arithmetic, float32 inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import QuantizeError
from edgekit.ort.model import clean, to_proto
from edgekit.ort.probe import INFINITE, largest_magnitudes

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgekit.contract import Feeds

LARGEST = 65504.0
SMALLEST = 2.0**-24

# Sums and powers leave float16's range, or lose its 11 bits, on ordinary activations.
_NEEDS_RANGE = frozenset(
    "CumSum DFT Exp LpNormalization MelWeightMatrix Pow ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSum "
    "ReduceSumSquare STFT".split()
)
# Fixed to float32 by what they mean (a dtype attribute, detection boxes in pixels) or without a float16 kernel in onnxruntime.
_NO_KERNEL = frozenset(
    "Bernoulli DequantizeLinear EyeLike Max Min Multinomial NonMaxSuppression OneHot QuantizeLinear RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Range RoiAlign TopK Upsample".split()
)

# What a spectrum goes through between its filters and its logarithm. Anything else bounds the values: what is before is safe.
_SPECTRAL = frozenset(
    "Abs Add Concat Conv Div Expand Flatten Gather Gemm Identity MatMul Max Mul Neg Pad Pow ReduceL2 ReduceSum ReduceSumSquare "
    "Reshape Slice Split Sqrt Squeeze Sub Transpose Unsqueeze".split()
)

# What an activation may reach on the inputs that were tried: half of float16's end, and at the other end a magnitude whose
# thousandth part still has the 11 bits that float16 gives to ordinary numbers (below 2**-14 it gives fewer and fewer).
_HIGHEST = LARGEST / 2
_LOWEST = 2.0**-8

# So many nodes that stay in float32 are named one by one.
_NAMED = 4


def to_float16(hub: ir.Model, feeds: Sequence[Feeds] = ()) -> tuple[bytes, list[str]]:
    """The hub in float16: an ONNX file and notes on what stayed in float32.

    Every node computes in float16 except those that the ONNX schema does not allow it for, that need float32's range
    (sums, powers), that have a weight beyond ±65504, that filter what goes through a logarithm (rounded filters leak, and a
    logarithm makes a trace as large as a signal), or that, on `feeds`, have an activation beyond half of float16's range or
    one that stays below 1/256 everywhere. Between the two kinds are Casts; inputs and outputs stay float32. Values keep
    their names.

    Raises:
        QuantizeError: The type of a value is not known.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    proto = onnx.shape_inference.infer_shapes(to_proto(hub), data_prop=True)
    model = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ir.from_proto(proto)).model
    conversion = _Conversion(model.graph, _out_of_range(proto, feeds) if feeds else {})
    conversion.run()
    data = clean(ir.to_proto(model)).SerializeToString(deterministic=True)
    return data, conversion.notes


def _out_of_range(proto: onnx.ModelProto, feeds: Iterable[Feeds]) -> dict[str, float]:
    """Names of values that float16 is too short for, at either end, with the largest magnitude that they reach."""
    reached = largest_magnitudes(proto, feeds).items()
    return {name: size for name, size in reached if 0 < size < _LOWEST or _HIGHEST < size < INFINITE}


@dataclass
class _Conversion:
    """One graph on its way to float16.

    `out_of_range` holds the activations that float16 is too short for and what they reach; `kept` the nodes that stay in
    float32 for a reason that a reader must know; `copies`, by value and dtype, the Cast or the converted weight that stands
    in for a value.
    """

    graph: ir.Graph
    out_of_range: dict[str, float]
    notes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    copies: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    logged: set[ir.Node] = field(default_factory=set)

    def run(self) -> None:
        import onnx_ir as ir

        outputs = [value for value in self.graph.outputs if value.dtype == ir.DataType.FLOAT]
        self.logged = _before_logarithm(self.graph)
        if self.logged:
            self.notes.append(f"a logarithm and the {len(self.logged) - 1} nodes before it stay in float32: rounding would show")
        for node in list(self.graph):
            self._convert(node)
        self.notes += self.kept[:_NAMED]
        if len(self.kept) > _NAMED:
            self.notes.append(f"{len(self.kept) - _NAMED} more nodes stay in float32 for such reasons")
        for value in outputs:
            self._restore_output(value)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and value not in self.graph.outputs:
                del self.graph.initializers[name]

    def _convert(self, node: ir.Node) -> None:
        import onnx_ir as ir

        for output in node.outputs:
            if output.uses() and output.dtype is None:
                raise QuantizeError(
                    f"the type of {output.name!r} is not known",
                    where=f"node {node.name!r} ({node.op_type})",
                    fix="use fp32 or int8, or name types in the source model",
                )
        float_inputs, float_outputs = _float32_positions(node, self.graph.opset_imports.get(node.domain, 1))
        reason = self._reason_for_float32(node)
        if reason is not None:
            if reason:
                self.kept.append(f"{node.name or node.op_type} ({node.op_type}) stays in float32: {reason}")
            self._feed_float32(node)
            return
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                dtype = ir.DataType.FLOAT if i in float_inputs else ir.DataType.FLOAT16
                node.replace_input_with(i, self._as(value, dtype, node))
        _convert_attributes(node)
        for i, output in enumerate(node.outputs):
            if output.dtype == ir.DataType.FLOAT and i not in float_outputs:
                output.dtype = ir.DataType.FLOAT16

    def _reason_for_float32(self, node: ir.Node) -> str | None:
        """None where the node can compute in float16, "" where its kind alone forbids it, otherwise what a reader must know."""
        if node.domain not in ("", "ai.onnx") or node.op_type in _NO_KERNEL | _NEEDS_RANGE or _subgraphs(node):
            return ""
        if node in self.logged:
            return ""
        if not any(v is not None and _is_float(v) for v in (*node.inputs, *node.outputs)):
            return ""
        if not _allows_float16(node, self.graph.opset_imports.get("", 1)):
            return ""
        for weight in node.inputs:
            if weight is not None and _weight_size(weight) > LARGEST:
                return f"its weight {weight.name!r} reaches {_weight_size(weight):.3g}"
        for activation in (*node.inputs, *node.outputs):
            if activation is not None and activation.name in self.out_of_range:
                size = self.out_of_range[activation.name]
                return f"the activation {activation.name!r} reaches {'only ' if size < 1 else ''}{size:.3g}"
        return None

    def _feed_float32(self, node: ir.Node) -> None:
        """Give a node, and the graphs inside it, float32 for every value that has become float16."""
        import onnx_ir as ir

        inner = [n for graph in _subgraphs(node) for n in _all_nodes(graph)]
        own = {value for n in inner for value in n.outputs}
        for user in (node, *inner):
            for i, value in enumerate(user.inputs):
                if value is not None and value not in own and value.dtype == ir.DataType.FLOAT16:
                    user.replace_input_with(i, self._as(value, ir.DataType.FLOAT, node))

    def _as(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        """The value in this dtype: itself, its converted weight, or a Cast that its users share."""
        import onnx_ir as ir

        if value.dtype == dtype:
            return value
        if (value, dtype) not in self.copies:
            suffix = "fp16" if dtype == ir.DataType.FLOAT16 else "fp32"
            name = f"{value.name}_{suffix}"
            if value.is_initializer() and not value.is_graph_input() and value.const_value is not None:
                tensor = ir.Tensor(_rounded(value.const_value.numpy()), name=name)
                copy = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=tensor)
                self.graph.register_initializer(copy)
            else:
                cast = ir.node("Cast", [value], {"to": dtype}, name=name)
                copy = cast.outputs[0]
                copy.name, copy.shape, copy.type = name, value.shape, ir.TensorType(dtype)
                self.graph.insert_before(before, cast)
            self.copies[value, dtype] = copy
        return self.copies[value, dtype]

    def _restore_output(self, value: ir.Value) -> None:
        """A graph output that has become float16 keeps its name and its float32 through a Cast at the end."""
        import onnx_ir as ir

        if value.dtype != ir.DataType.FLOAT16:
            return
        name = value.name
        value.name = f"{name}_fp16"
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}_fp32")
        result = cast.outputs[0]
        result.name, result.shape, result.type = name, value.shape, ir.TensorType(ir.DataType.FLOAT)
        self.graph.append(cast)
        for i, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[i] = result


def _before_logarithm(graph: ir.Graph) -> set[ir.Node]:
    """Every Log that filters (a convolution, a product with weights) reach through `_SPECTRAL` nodes alone, with those nodes."""
    found: set[ir.Node] = set()
    for log in [node for node in graph if node.op_type == "Log" and node.domain in ("", "ai.onnx")]:
        seen: set[ir.Node] = set()
        waiting = list(log.inputs)
        while waiting:
            value = waiting.pop()
            node = value.producer() if value is not None else None
            if node is not None and node not in seen and node.op_type in _SPECTRAL and node.domain in ("", "ai.onnx"):
                seen.add(node)
                waiting += node.inputs
        if any(node.op_type in ("Conv", "Gemm", "MatMul") for node in seen):
            found |= seen | {log}
    return found


def _float32_positions(node: ir.Node, opset: int) -> tuple[set[int], set[int]]:
    """Inputs and outputs that the operator's schema fixes to float32, whatever the others are (the scales of Resize)."""
    schema = _schema(node, opset)
    if schema is None:
        return set(), set()
    fixed = "tensor(float)"
    inputs = {i for i, parameter in enumerate(schema.inputs) if parameter.type_str == fixed}
    return inputs, {i for i, parameter in enumerate(schema.outputs) if parameter.type_str == fixed}


def _allows_float16(node: ir.Node, opset: int) -> bool:
    """Whether the schema of this opset takes float16 for all parameters that take float32 and are not fixed to it."""
    schema = _schema(node, opset)
    if schema is None:
        return False
    used = {p.type_str for p in (*schema.inputs, *schema.outputs)}
    constraints = [c for c in schema.type_constraints if c.type_param_str in used]
    with_float = [c for c in constraints if "tensor(float)" in c.allowed_type_strs]
    return bool(with_float) and all("tensor(float16)" in c.allowed_type_strs for c in with_float)


def _schema(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    if not onnx.defs.has(node.op_type, domain):
        return None
    return onnx.defs.get_schema(node.op_type, opset, domain)


def _convert_attributes(node: ir.Node) -> None:
    """Tensors held by a node (Constant, ConstantOfShape) and the type a Cast gives."""
    import onnx_ir as ir

    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(np.zeros(1, np.float16)))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(_rounded(attribute.as_tensor().numpy())))
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT16))


def _rounded(array: np.ndarray) -> np.ndarray:
    """To float16: stand-ins for infinity become its largest number, what would vanish its smallest, infinity stays."""
    finite = np.isfinite(array)
    small = (array != 0) & (np.abs(array) < SMALLEST)
    array = np.where(finite, np.clip(array, -LARGEST, LARGEST), array)
    return np.where(small, np.copysign(SMALLEST, array), array).astype(np.float16)


def _weight_size(value: ir.Value) -> float:
    """The largest magnitude of a weight, stand-ins for infinity left out; 0 for what is no weight."""
    if value.const_value is None or not _is_float(value):
        return 0.0
    array = value.const_value.numpy()
    magnitudes = np.abs(array[np.isfinite(array)], dtype=np.float64)
    return float(magnitudes[magnitudes < INFINITE].max(initial=0.0))


def _is_float(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    import onnx_ir as ir

    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    return graphs + [g for a in node.attributes.values() if a.type == ir.AttributeType.GRAPHS for g in a.as_graphs()]


def _all_nodes(graph: ir.Graph) -> list[ir.Node]:
    nodes = list(graph)
    return nodes + [inner for node in nodes for sub in _subgraphs(node) for inner in _all_nodes(sub)]
