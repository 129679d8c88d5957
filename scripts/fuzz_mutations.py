"""Models for scripts/fuzz_compile.py: real ones to begin with, and what can be wrong with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
INTS = (-1, 0, 1, 2, 3, 4, 5, 7, 16, -2, -3, -7, 64, 255, 65536, 1 << 31, -(1 << 31), (1 << 40) + 1, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-9, 1e38, -1e38, float("nan"), float("inf"), float("-inf"))
DIMS = (0, 1, 2, 3, 5, 17, -1, -4, 4096, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)
STRINGS = (
    *"SAME_UPPER VALID NOTSET linear cubic nearest reflect edge wrap constant add mul bilinear align_corners half_pixel".split(),
    *"floor ceil DCR CRD none tanh bidirectional reverse ij,jk->ik ...".split(),
    "",
    "\x00",
    "é" * 40,
)
TYPES = (*range(18), 21, 22, 23, 99)
NAMES = (
    "axis axes keepdims perm pads strides dilations group kernel_shape auto_pad ceil_mode mode to alpha beta epsilon transA "
    "allowzero block_size batch_dims largest exclusive direction num_outputs value"
).split()

TEXTS = {
    "cnn": """cnn (float[1,3,8,8] x) => (float[1,5] y)
        <float[4,3,3,3] w, float[4] b, float[4] s, float[4] m, float[4] v, float[5,4] f, float[5] c> {
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
        n = BatchNormalization(a, s, b, m, v)
        r = Relu(n)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)
        z = Add(p, q)
        g = GlobalAveragePool(z)
        l = Flatten(g)
        y = Gemm<transB=1>(l, f, c)
    }""",
    "transformer": """t (float[2,4,8] x) => (float[2,4,8] y)
        <float[8,8] q, float[8,8] k, float[8,8] v, float[8] g, float[8] b,
         int64[4] s = {0, 4, 2, 4}, int64[3] u = {0, 4, 8}, float h = {0.5}> {
        n = LayerNormalization(x, g, b)
        qx = MatMul(n, q)
        kx = MatMul(n, k)
        vx = MatMul(n, v)
        qr = Reshape(qx, s)
        kr = Reshape(kx, s)
        vr = Reshape(vx, s)
        qt = Transpose<perm=[0,2,1,3]>(qr)
        kt = Transpose<perm=[0,2,3,1]>(kr)
        vt = Transpose<perm=[0,2,1,3]>(vr)
        w = MatMul(qt, kt)
        e = Mul(w, h)
        a = Softmax<axis=-1>(e)
        o = MatMul(a, vt)
        ot = Transpose<perm=[0,2,1,3]>(o)
        r = Reshape(ot, u)
        d = Gelu(r)
        y = Add(d, x)
    }""",
    "rnn": """r (float[3,2,4] x) => (float[3,2,2,5] y, float[2,2,5] h) <float[2,20,4] w, float[2,20,5] r> {
        y0, h, c = LSTM<hidden_size=5, direction="bidirectional">(x, w, r)
        t = Transpose<perm=[0,2,1,3]>(y0)
        y = Transpose<perm=[0,1,2,3]>(t)
    }""",
    "control": """c (float[2,3] x, bool go) => (float[2,3] y, float[4,2,3] z) <int64 n = {4}, bool yes = {1}> {
        a = If(go) <then_branch = t () => (float[2,3] p) { p = Relu(x) }, else_branch = e () => (float[2,3] q) { q = Neg(x) }>
        y, z = Loop(n, yes, a) <body = b (int64 i, bool c, float[2,3] v) => (bool d, float[2,3] w, float[2,3] s) {
            d = Identity(c)
            w = Add(v, x)
            s = Mul(w, w)
        }>
    }""",
    "shapes": """s (float[N,6] x) => (float[N,A,B] y, float[M] f)
        <int64 one = {1}, int64[1] two = {2}, int64[1] three = {3},
         int64 zero = {0}, int64[1] minus = {-1}, int64[1] z = {0}> {
        h = Shape(x)
        n = Gather(h, zero)
        m = Unsqueeze(n, z)
        t = Concat<axis=0>(m, two, three)
        y = Reshape(x, t)
        e = Slice(x, z, two, z)
        r = ReduceSum(e, minus)
        f = Reshape(r, minus)
    }""",
    "quantized": """q (float[1,2,6,6] x) => (float[1,4,6,6] y)
        <float s = {0.05}, uint8 z = {128},
         int8[4,2,3,3] w, float[4] ws = {0.1, 0.2, 0.1, 0.3}, int8[4] wz = {0, 0, 0, 0}> {
        a = QuantizeLinear(x, s, z)
        b = DequantizeLinear(a, s, z)
        v = DequantizeLinear<axis=0>(w, ws, wz)
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(b, v)
        d = Relu(c)
        e = QuantizeLinear(d, s, z)
        y = DequantizeLinear(e, s, z)
    }""",
}  # fmt: skip
"""Small networks; initializers without a value get random ones."""


def small_seeds() -> list[ModelProto]:
    """One small network of each kind, and the sample of the README."""
    return [_network(text) for text in TEXTS.values()] + [onnx.load(ROOT / "samples" / "digits.onnx")]


def node_test_seeds() -> list[ModelProto]:
    """ONNX's node tests whose inputs and outputs are tensors of numbers, as they are and with constants frozen."""
    from conformance_cases import _frozen, collect, outside

    cases = [case for case in collect() if not outside(case) and case.model.ByteSize() < 1 << 17]
    return [case.model for case in cases] + [_frozen(case).model for case in cases if len(case.inputs) > 1]


def _network(text: str) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{text}')
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:  # where the parser leaves constants without a value
        kind = value.type.tensor_type
        made = rng.standard_normal([d.dim_value for d in kind.shape.dim]) * (60 if kind.elem_type == TensorProto.INT8 else 0.3)
        made = np.abs(made) + 0.1 if value.name in ("v", "s") else made
        tensor = numpy_helper.from_array(made.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), value.name)
        model.graph.initializer.append(tensor)
    del model.graph.value_info[:]
    return model


def mutate(model: ModelProto, rng: random.Random) -> bytes:
    """A file that differs from the model's in one to three things."""
    if rng.random() < 0.2:
        return _mutate_bytes(model.SerializeToString(), rng)
    mutated = ModelProto()
    mutated.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(MUTATIONS)(mutated, rng)
    return mutated.SerializeToString()


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(found[: rng.randrange(len(found))])
    if kind == 1:
        return rng.randbytes(rng.randrange(1, 2000))
    if kind == 2:
        start = rng.randrange(len(found))
        end = min(len(found), start + rng.randrange(1, 64))
        return bytes(found[:end] + found[start:end] + found[end:])
    if kind == 3:
        start = rng.randrange(len(found))
        del found[start : start + rng.randrange(1, 32)]
        return bytes(found)
    for _ in range(rng.choice((1, 1, 2, 8))):
        found[rng.randrange(len(found))] = rng.randrange(256) if kind == 4 else rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(found)


# One thing that is wrong, each. A mutation that finds nothing to change changes nothing.


def _attribute(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node and node.attribute:
        attribute = rng.choice(list(node.attribute))
        match attribute.type:
            case AttributeProto.INT:
                attribute.i = rng.choice((*INTS, attribute.i + 1, attribute.i - 1) if abs(attribute.i) < 1 << 62 else INTS)
            case AttributeProto.FLOAT:
                attribute.f = rng.choice(FLOATS)
            case AttributeProto.STRING:
                attribute.s = rng.choice(STRINGS).encode()
            case AttributeProto.INTS:
                _change_list(attribute.ints, INTS, rng)
            case AttributeProto.FLOATS:
                _change_list(attribute.floats, FLOATS, rng)
            case AttributeProto.STRINGS:
                _change_list(attribute.strings, [text.encode() for text in STRINGS], rng)
            case AttributeProto.TENSOR:
                _change_tensor(attribute.t, rng)


def _attribute_gone(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def _attribute_of_another_kind(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node and node.attribute:
        attribute = rng.choice(list(node.attribute))
        if rng.random() < 0.3:
            attribute.name = rng.choice(("", *NAMES))
        elif rng.random() < 0.3:
            attribute.type = rng.randrange(0, 15)  # type: ignore[assignment]
        else:
            attribute.CopyFrom(_random_attribute(attribute.name, rng))


def _attribute_more(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node:
        node.attribute.append(_random_attribute(rng.choice(NAMES), rng))


def _operator(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node:
        schemas = onnx.defs.get_all_schemas()
        node.op_type = rng.choice([s.name for s in schemas if s.domain == ""] + ["", "NoSuchOperator", node.op_type + "2"])
        if rng.random() < 0.1:
            node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "ai.onnx", "own"))


def _operator_like(model: ModelProto, rng: random.Random) -> None:
    """Another operator of as many inputs, which often makes a model that is right."""
    node = _node(model, rng)
    if node:
        node.op_type = rng.choice(ALIKE[min(len(node.input), 3)].split())


ALIKE = {
    0: "Constant RandomNormal",
    1: "Relu Neg Abs Exp Log Sqrt Sigmoid Tanh Erf Floor Ceil Round Softmax Identity Cast Transpose Shape Size Not IsNaN Sign "
    "Sin ReduceSum ReduceMean ReduceMax Flatten Squeeze Cos HardSwish Elu Selu Softplus Gelu Mish GlobalAveragePool ArgMax",
    2: "Add Sub Mul Div Pow Min Max Mod MatMul Equal Less Greater And Or Xor Gather Expand Reshape Tile Unsqueeze Squeeze "
    "PRelu BitShift Concat Conv ConvTranspose ReduceSum GatherElements GatherND TopK Pad Gemm MaxUnpool",
    3: "Where Gemm Clip Concat Sum Mean Max Slice ScatterND Conv Range",
}


def _node_gone(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    if graph.node:
        del graph.node[rng.randrange(len(graph.node))]


def _node_twice(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    if graph.node:
        again = NodeProto()
        again.CopyFrom(rng.choice(list(graph.node)))
        if rng.random() < 0.5:
            again.output[:] = [f"{name}_again" for name in again.output]
            rng.choice(list(graph.node)).input.append(again.output[0] if again.output else "")
        nodes = [*graph.node]
        nodes.insert(rng.randrange(len(nodes) + 1), again)
        _set_nodes(graph, nodes)


def _nodes_shuffled(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    nodes = [*graph.node]
    rng.shuffle(nodes)
    _set_nodes(graph, nodes)


def _rewired(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    node = _node(model, rng)
    names = (
        [name for n in graph.node for name in n.output] + [v.name for v in (*graph.input, *graph.initializer)] + ["", "nobody"]
    )
    if node and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _inputs_fewer_or_more(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node:
        names = list(node.input)
        if names and rng.random() < 0.5:
            names.pop(rng.randrange(len(names)))
        else:
            names.insert(rng.randrange(len(names) + 1), rng.choice([*names, ""]))
        if len(names) > 1 and rng.random() < 0.3:
            rng.shuffle(names)
        node.input[:] = names


def _outputs_fewer_or_more(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node:
        kind = rng.randrange(4)
        if kind == 0 and node.output:
            node.output.pop()
        elif kind == 1:
            node.output.append(f"more{rng.randrange(100)}")
        elif kind == 2 and node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice(["", *node.input, "renamed"])
        elif node.output:
            node.output.append(node.output[0])


def _constant(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    if graph.initializer:
        _change_tensor(rng.choice(list(graph.initializer)), rng)


def _constant_gone_or_twice(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    if graph.initializer:
        place = rng.randrange(len(graph.initializer))
        if rng.random() < 0.5:
            del graph.initializer[place]
        elif rng.random() < 0.5:
            graph.initializer.append(graph.initializer[place])
        else:
            graph.initializer[place].name = rng.choice(["", "other", *(n for node in graph.node for n in node.output)])


def _declared(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    values = [*graph.input, *graph.input, *graph.output, *graph.value_info]
    if values:
        _change_type(rng.choice(values), rng)


def _declared_inside(model: ModelProto, rng: random.Random) -> None:
    """A lie about a value between two nodes."""
    graph = _graph(model, rng)
    names = [name for node in graph.node for name in node.output]
    if names:
        shape = [rng.choice(DIMS) for _ in range(rng.randrange(5))]
        graph.value_info.append(helper.make_tensor_value_info(rng.choice(names), rng.choice(TYPES), shape))


def _interface(model: ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    names = [name for node in graph.node for name in (*node.input, *node.output)] + [""]
    kind = rng.randrange(6)
    if kind == 0 and graph.output:
        graph.output.append(graph.output[0])
    elif kind == 1 and graph.output:
        rng.choice(list(graph.output)).name = rng.choice(names)
    elif kind == 2 and graph.input:
        rng.choice(list(graph.input)).name = rng.choice(names)
    elif kind == 3 and graph.input:
        del graph.input[rng.randrange(len(graph.input))]
    elif kind == 4 and graph.output:
        del graph.output[rng.randrange(len(graph.output))]
    elif kind == 5:
        graph.output.append(helper.make_tensor_value_info(rng.choice(names), 1, None))


def _versions(model: ModelProto, rng: random.Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        model.ir_version = rng.choice((0, 1, 3, 4, 8, 13, 99))
    elif kind == 1 and model.opset_import:
        del model.opset_import[:]
    elif model.opset_import:
        rng.choice(list(model.opset_import)).version = rng.choice((0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 21, 23, 25, 99, -5))


def _function(model: ModelProto, rng: random.Random) -> None:
    """A model-local function, which may call itself."""
    node = _node(model, rng)
    if node:
        body = NodeProto()
        body.CopyFrom(node)
        if rng.random() < 0.3:
            body.op_type, body.domain = "own_function", "own"
        made = helper.make_function("own", "own_function", list(node.input), list(node.output), [body], list(model.opset_import))
        model.functions.append(made)
        node.op_type, node.domain = "own_function", "own"
        del node.attribute[:]
        if rng.random() < 0.9:
            model.opset_import.append(helper.make_opsetid("own", 1))


MUTATIONS: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    _attribute,
    _attribute,
    _attribute,
    _attribute_gone,
    _attribute_of_another_kind,
    _attribute_more,
    _operator,
    _operator_like,
    _operator_like,
    _node_gone,
    _node_twice,
    _nodes_shuffled,
    _rewired,
    _rewired,
    _inputs_fewer_or_more,
    _outputs_fewer_or_more,
    _constant,
    _constant,
    _constant_gone_or_twice,
    _declared,
    _declared,
    _declared_inside,
    _interface,
    _versions,
    _function,
)


def _random_attribute(name: str, rng: random.Random) -> AttributeProto:
    ints = [rng.choice(INTS) for _ in range(rng.randrange(1, 5))]
    made: object = rng.choice((rng.choice(INTS), rng.choice(FLOATS), rng.choice(STRINGS), ints))
    return helper.make_attribute(name, made)


def _change_list(values, choices: Sequence, rng: random.Random) -> None:  # type: ignore[no-untyped-def]  # protobuf's list
    kind = rng.randrange(5)
    if kind == 0:
        del values[:]
    elif kind == 1:
        values.append(rng.choice(list(values) or choices))
    elif kind == 2 and values:
        values.pop(rng.randrange(len(values)))
    elif values:
        values[rng.randrange(len(values))] = rng.choice(choices)


def _change_tensor(tensor: TensorProto, rng: random.Random) -> None:
    kind = rng.randrange(7)
    if kind == 0:
        tensor.data_type = rng.choice(TYPES)
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(DIMS)
    elif kind == 2:
        _change_list(tensor.dims, DIMS, rng)
    elif kind == 3 and tensor.raw_data:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data))]
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        location = rng.choice(("../../etc/passwd", "gone.bin", "", "/dev/zero", "."))
        length = rng.choice(("4", "-4", "99999999999999"))
        entries = (("location", location), ("offset", rng.choice(("0", "-1", "x"))), ("length", length))
        for key, value in entries[: rng.randrange(4)]:
            tensor.external_data.add(key=key, value=value)
    else:
        _change_contents(tensor, rng)


def _change_contents(tensor: TensorProto, rng: random.Random) -> None:
    """Other numbers in the same tensor."""
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:
        return  # an earlier mutation has broken it
    if array.size and array.dtype.kind in "fiu":
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        choices = FLOATS if limits is None else [v for v in INTS if limits.min <= v <= limits.max]
        place = rng.randrange(array.size) if rng.random() < 0.7 else slice(None)
        array.reshape(-1)[place] = np.array(rng.choice(choices), array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _change_type(value: ValueInfoProto, rng: random.Random) -> None:
    kind = rng.randrange(6)
    tensor = value.type.tensor_type
    if kind == 0:
        tensor.elem_type = rng.choice(TYPES)
    elif kind == 1 and tensor.shape.dim:
        rng.choice(list(tensor.shape.dim)).dim_value = rng.choice(DIMS)
    elif kind == 2 and tensor.shape.dim:
        rng.choice(list(tensor.shape.dim)).dim_param = rng.choice(
            ("N", "N", "batch", "N+1", "", "1", "-", "N//2", "if", "N*" * 200)
        )
    elif kind == 3:
        value.type.ClearField("tensor_type") if rng.random() < 0.5 else tensor.ClearField("shape")
    elif kind == 4:
        tensor.shape.dim.add().dim_value = rng.choice(DIMS)
    elif tensor.shape.dim:
        del tensor.shape.dim[rng.randrange(len(tensor.shape.dim))]


def _graph(model: ModelProto, rng: random.Random) -> GraphProto:
    """The main graph, or one in an attribute of a node."""
    graphs = [model.graph]
    for graph in graphs:
        graphs += [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return rng.choice(graphs)


def _node(model: ModelProto, rng: random.Random) -> NodeProto | None:
    graph = _graph(model, rng)
    return rng.choice(list(graph.node)) if graph.node else None


def _set_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
