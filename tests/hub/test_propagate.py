"""One walk forward: constants are folded, shapes are known, also symbolic ones, also inside control flow."""

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.errors import InputError, SourceError
from edgekit.hub.check import holes
from tests.hub.graphs import hub, operators, same, text_model


def shapes(model: ir.Model) -> dict[str, str]:
    return {value.name or "": str(value.shape) for node in model.graph for value in node.outputs}


def test_a_static_reshape_chain_becomes_one_constant() -> None:
    model = same(
        """g (float[2,3,4] x) => (float[2,12] y) <int64 zero = {0}, int64[1] rest = {-1}>
        { s = Shape(x) b = Gather<axis=0>(s, zero) z = Constant<value_ints=[0]>() u = Unsqueeze(b, z)
          t = Concat<axis=0>(u, rest) y = Reshape(x, t) }"""
    )
    assert operators(model) == {"Reshape": 1}
    assert [value.const_value.numpy().tolist() for value in model.graph.initializers.values()] == [[2, 12]]


def test_a_symbolic_reshape_chain_becomes_one_constant_too() -> None:
    model = same(
        """g (float[batch,8,6] x) => (float[b,8,2,3] y) <int64 zero = {0}, int64[3] rest = {8, -1, 3}>
        { s = Shape(x) b = Gather<axis=0>(s, zero) z = Constant<value_ints=[0]>() u = Unsqueeze(b, z)
          t = Concat<axis=0>(u, rest) y = Reshape(x, t) }"""
    )
    assert operators(model) == {"Reshape": 1}
    assert shapes(model) == {"y": "[batch,8,2,3]"}


def test_a_declared_size_that_data_decide_is_not_believed() -> None:
    """The exporter wrote down the sizes of its example."""
    model = hub(
        """g (float[3,4] x, int64[2] s, bool[3] c) => (float[2,6] y, int64[2] n, float[2,4] z)
        { y = Reshape(x, s) n = Shape(y) z = Compress<axis=0>(x, c) }"""
    )
    assert shapes(model) == {"y": "[y_d0,y_d1]", "n": "[2]", "z": "[z_d0,4]"}


def test_a_declared_size_that_shapes_decide_is_believed() -> None:
    """What Mod makes of a symbol is beyond the rules here; the exporter may know more."""
    model = hub(
        """g (float[n,k] x) => (float[n,12] y)
        <int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[3] none = {0, 0, 0}>
        { s = Shape(x) k = Slice(s, one, two) m = Mod(k, three) p = Concat<axis=0>(none, m) y = Pad(x, p) }"""
    )
    assert shapes(model)["y"] == "[n,12]"


def test_one_symbol_stays_the_same_through_the_graph() -> None:
    model = hub(
        """g (float[batch,3,32,32] x) => (y) <float[8,3,3,3] w = {0}, int64[2] f = {0,-1}, float[2048,10] d = {0}>
        { a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) r = Relu(a) y0 = Reshape(r, f) y = MatMul(y0, d) }""".replace(
            "<float[8,3,3,3] w = {0}", "<float[8,3,3,3] w = {" + ",".join("0" * 216) + "}"
        ).replace("float[2048,10] d = {0}", "float[2048,1] d = {" + ",".join("0" * 2048) + "}")
    )
    assert set(shapes(model).values()) == {"[batch,8,16,16]", "[batch,2048]", "[batch,1]"}


def test_torch_style_expand_on_a_symbolic_shape() -> None:
    model = same(
        """g (float[batch,4] x) => (y) <int64[1] minus = {-1}, int64[1] four = {4}, int64 zero = {0}, float[1,4] c = {1,2,3,4}>
        { s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, four) e = Equal(t, minus) o = ConstantOfShape(t2)
          t2 = Shape(t) i = Cast<to=7>(o) w = Where(e, i, t) z = Expand(c, w) y = Add(x, z) }""".replace(
            "o = ConstantOfShape(t2)\n          t2 = Shape(t)", "t2 = Shape(t) o = ConstantOfShape(t2)"
        )
    )
    assert operators(model) == {"Add": 1}
    assert shapes(model) == {"y": "[batch,4]"}


def test_convolution_over_a_symbolic_width() -> None:
    model = hub(
        "g (float[1,1,w] x) => (y) <float[1,1,3] k = {1,2,3}> { y = Conv<strides=[2], pads=[1,1]>(x, k) }",
    )
    assert shapes(model) == {"y": "[1,1,((w - 1)//(2)) + 1]"}
    assert (
        str(
            hub("g (float[1,1,w] x) => (y) <float[1,1,3] k = {1,2,3}> { y = Conv(x, k) }", {"x": (1, 1, 9)})
            .graph.outputs[0]
            .shape
        )
        == "[1,1,7]"
    )


def test_weights_computed_from_constants_are_folded() -> None:
    model = same(
        """g (float[2,3] x) => (float[2,2] y) <float16[2,3] w = {1,2,3,4,5,6}>
        { c = Cast<to=1>(w) t = Transpose<perm=[1,0]>(c) y = MatMul(x, t) }"""
    )
    assert operators(model) == {"MatMul": 1}


def test_what_would_grow_stays() -> None:
    model = hub(
        """g (float[8192,1024] x) => (float[8192,1024] y) <int64[2] s = {8192,1024}, float[1,1024] c = {C}>
        { e = Expand(c, s) m = Neg(e) y = Concat2(x, m) }""".replace("Concat2", "Add").replace(
            "{C}", "{" + ",".join(str(i) for i in range(1024)) + "}"
        )
    )
    assert sum(value.const_value.nbytes for value in model.graph.initializers.values()) < 16_000


def test_random_numbers_are_not_constants() -> None:
    model = hub("g (float[2,2] x) => (float[2,2] y) <float[2,2] c = {0,0,0,0}> { r = RandomNormalLike(c) y = Add(x, r) }")
    assert operators(model) == {"RandomNormalLike": 1, "Add": 1}


def test_a_quantized_weight_keeps_its_scale() -> None:
    model = hub(
        """g (float[1,2] x) => (float[1,2] y) <int8[2,2] w = {1,2,3,4}, float s = {0.5}, int8 z = {0}>
        { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }"""
    )
    assert operators(model) == {"DequantizeLinear": 1, "MatMul": 1}


BRANCHES = """<then_branch = t () => (float[2] a) { a = Neg(x) },
              else_branch = e () => (float[2] b) { k = Constant<value_float=2.0>() b = Mul(x, k) }>"""


OPEN = (
    """g (float[2] x) => (float[2] y) <float l = {0}, int64[1] ax = {0}>
{ s = ReduceSum<keepdims=0>(x, ax) c = Greater(s, l) y = If"""
    + BRANCHES
    + "(c) }"
)


@pytest.mark.parametrize(("condition", "left"), [(1, {"Neg": 1}), (0, {"Mul": 1})])
def test_a_constant_condition_takes_its_branch(condition: int, left: dict[str, int]) -> None:
    model = same(f"g (float[2] x) => (float[2] y) <bool c = {{{condition}}}> {{ y = If{BRANCHES}(c) }}")
    assert operators(model) == left


def test_an_open_condition_stays_and_its_branches_are_prepared() -> None:
    model = same(OPEN)
    assert operators(model)["If"] == 1
    inner = [node.op_type for graph in model.graph.subgraphs() for node in graph]
    assert inner == ["Neg", "Mul"]


def test_a_branch_that_cannot_fit_is_not_taken() -> None:
    model = hub(
        """g (float[n] x, bool c) => (float[m] y) <int64[2] two = {2,2}, int64[2] three = {3,3}, int64[1] all = {-1}>
        { y = If<then_branch = t () => (float[p] a) { q = Reshape(x, two) a = Reshape(q, all) },
                 else_branch = e () => (float[p] b) { r = Reshape(x, three) s = Neg(r) b = Reshape(s, all) }>(c) }""",
        {"x": (9,)},
    )
    assert operators(model) == {"Neg": 1}


def test_what_a_turn_takes_by_its_number_is_one() -> None:
    model = same(
        """g (float[2] x, float[5,2] table) => (float[2] y, float[5,2] all) <int64 n = {5}, bool on = {1}>
        { y, all = Loop<body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w, float[2] o)
            <int64 one = {1}, int64[1] z = {0}, int64[1] two = {2}>
            { d = Identity(c) j = Add(i, one) s = Unsqueeze(i, z) e = Unsqueeze(j, z) t = Slice(table, s, e, z)
              r = Reshape(t, two) w = Add(v, r) o = Identity(w) }>(n, on, x) }"""
    )
    inner = next(node for node in model.graph if node.op_type == "Loop").attributes["body"].as_graph()
    assert {str(node.outputs[0].shape) for node in inner if node.op_type == "Slice"} == {"[1,2]"}
    assert shapes(model) == {"y": "[2]", "all": "[5,2]"}


def test_a_loop_has_shapes_inside_and_outside() -> None:
    model = same(
        """g (float[3] x) => (float[3] y, float[4,3] all) <int64 n = {4}, bool go = {1}>
        { y, all = Loop<body = b (int64 i, bool c, float[3] v) => (bool d, float[3] w, float[3] o)
          { d = Identity(c) one = Constant<value_float=1.0>() w = Add(v, one) o = Mul(w, w) }>(n, go, x) }"""
    )
    assert str(model.graph.outputs[1].shape) == "[4,3]"
    assert holes(model) == []


def test_what_grows_from_turn_to_turn_is_no_constant() -> None:
    """The first turn sees v of one element, and w of v's size; later ones do not."""
    model = same(
        """g (float[1] x, int64[1] zero) => (float[m] y, float[k] z, int64[1] size) <int64 n = {4}>
        { y, z, size = Loop<body = b (int64 i, bool c, float[j] v, float[k] w, int64[1] s)
          => (bool d, float[l] grown, float[j] last, int64[1] t)
          { d = Identity(c) grown = Concat<axis=0>(v, x) last = Identity(v) t = Shape(w) }>(n, , x, x, zero) }"""
    )
    assert [str(output.shape) for output in model.graph.outputs] == ["[y_d0]", "[z_d0]", "[1]"]


def test_scan_has_shapes() -> None:
    model = same(
        """g (float[2] s, float[5,2] x) => (float[2] y, float[5,2] all)
        { y, all = Scan<num_scan_inputs=1, body = b (float[2] a, float[2] e) => (float[2] c, float[2] o)
          { c = Add(a, e) o = Identity(c) }>(s, x) }"""
    )
    assert str(model.graph.outputs[1].shape) == "[5,2]"


def test_functions_are_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "my" : 1]> g (float[2] x) => (float[2] y) { y = my.twice<k=3.0>(x) }
    <domain: "my", opset_import: ["" : 18]> twice<k>(a) => (b) { c = Constant<value_float: float = @k>() b = Mul(a, c) }"""
    import onnx

    model = same(onnx.parser.parse_model(text))
    assert operators(model) == {"Mul": 1}


def test_outputs_that_are_inputs_or_constants_stay_valid() -> None:
    model = same(
        """g (float[2] x) => (float[2] y, float[2] z, float[2] w) <float[2] c = {1,2}>
        { y = Identity(x) z = Neg(c) r = Relu(x) w = Identity(r) }"""
    )
    assert [output.name for output in model.graph.outputs] == ["y", "z", "w"]
    assert operators(model) == {"Identity": 2, "Relu": 1}


def test_an_initializer_that_is_also_an_input_is_a_constant() -> None:
    proto = text_model("g (float[2] x) => (float[2] y) <float[2] c = {1,2}> { y = Add(x, c) }")
    proto.graph.input.extend([proto.graph.input[0]])
    proto.graph.input[1].name = "c"
    assert [value.name for value in hub(proto).graph.inputs] == ["x"]


def test_names_are_unique_and_those_of_the_interface_stay() -> None:
    proto = text_model(OPEN)
    proto.graph.node[2].attribute[0].g.node[0].output[0] = "s"
    proto.graph.node[2].attribute[0].g.output[0].name = "s"
    model = hub(proto)
    assert (model.graph.inputs[0].name, model.graph.outputs[0].name) == ("x", "y")


def test_given_shapes_fix_symbols_everywhere() -> None:
    body = "g (float[batch,seq] a, float[batch,seq] b) => (y) { c = Add(a, b) y = Relu(c) }"
    assert str(hub(body, {"a": (2, "n")}).graph.outputs[0].shape) == "[2,n]"


def test_shapes_that_do_not_fit_are_refused() -> None:
    body = "g (float[batch,3] x) => (y) { y = Relu(x) }"
    with pytest.raises(InputError, match="no input 'z'"):
        hub(body, {"z": (1, 3)})
    with pytest.raises(InputError, match="2 dimensions"):
        hub(body, {"x": (1, 3, 3)})


def test_a_model_that_contradicts_itself_names_the_node() -> None:
    with pytest.raises(SourceError, match="do not fit") as caught:
        hub("g (float[2,3] x, float[4,5] w) => (y) { [bad] y = MatMul(x, w) }")
    assert "bad" in str(caught.value)


def test_preparing_twice_changes_nothing() -> None:
    body = "g (float[1,3,8,8] x) => (y) <float[3] s = {1,2,3}> { a = HardSwish(x) b = Softmax(a) y = Relu(b) }"
    import onnx

    once = ir.to_proto(hub(body))
    twice = ir.to_proto(hub(onnx.ModelProto.FromString(once.SerializeToString())))
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)


def test_the_same_model_gives_the_same_bytes() -> None:
    body = "g (float[1,3,8,8] x) => (y) <float[3] s = {1,2,3}> { a = Softmax(x) b = GlobalAveragePool(a) y = Relu(b) }"
    first, second = (ir.to_proto(hub(body)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_weights_that_nothing_changes_are_not_copied() -> None:
    weight = np.ones((64, 64), np.float32)
    x, w = ir.val("x", ir.DataType.FLOAT, [1, 64]), ir.val("w", const_value=ir.Tensor(weight))
    node = ir.node("MatMul", [x, w])
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[w], opset_imports={"": 17}, name="g")
    from edgekit.hub import prepare

    model = prepare(ir.Model(graph, ir_version=8))
    (kept,) = model.graph.initializers.values()
    assert np.shares_memory(kept.const_value.numpy(), weight)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("g (float[1,6,4] b, float[1,6] s) => (y) { y = NonMaxSuppression(b, s) }", "input 1 has 2 dimensions, not 3"),
        (
            "g (float[2,3,3] x, float[1,15,3] w, float[1,30] r) => (y) { y = GRU<hidden_size=5>(x, w, r) }",
            "input 2 has 2 dimensions",
        ),
        ("g (float[3,5] x, int64[2,6] i, float[2] u) => (y) { y = ScatterND(x, i, u) }", "6 coordinates for data of 2 axes"),
        ("g (float[3,5] x, int64 i) => (y) { y = GatherND(x, i) }", "a scalar, without an axis of coordinates"),
        ("g (float[2,3,5] x, int64[2,3] i) => (y) { y = GatherND<batch_dims=1>(x, i) }", "3 coordinates for data of 2 axes"),
        ("g (int32[2,2,2] x, int64[2,1] i) => (y) { y = GatherND<batch_dims=-7>(x, i) }", "its batch_dims is -7"),
        ("g (float[3,5] x, int64[1,2,3] i) => (y) { y = GatherElements(x, i) }", r"its inputs have \[2, 3\] dimensions"),
        ("g (float[1,1,4,4] x) => (y) { y = LpPool<kernel_shape=[2,2], strides: ints = []>(x) }", "strides"),
        ("g (int64[3] x) => (y) <int64[3] i = {1, 4, 4}> { y = Gather(x, i) }", "picks what is not there"),
        ("g (float[1,1,3,3] x, float[1,2,3,3,4] w) => (y) { y = ConvTranspose<kernel_shape=[3,3]>(x, w) }", "same number"),
        ("g (float x, int64 a) => (y) { y = CumSum(x, a) }", "a scalar, without an axis"),
        ("g (float[2,3,4,8] q) => (y) { y = LpNormalization<p=2>(q) z = Elu<alpha=nan>(y) }", "where it must be a number"),
        (
            "g (int64[0] n, float[2] x) => (y) { y = Loop<body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w)"
            " { d = Identity(c) w = Identity(v) }>(n, , x) }",
            r"its number of turns has the shape \[0\]",
        ),
        (
            "g (float[2] s, float[2] t, float[3,2] x) => (y, z) { y, z = Scan<num_scan_inputs=1,"
            " body = b (float[2] v, float[2] e) => (float[2] w, float[2] o) { w = Add(v, e) o = Identity(w) }>(s, t, x) }",
            "its body has 2 inputs",
        ),
    ],
)
def test_inputs_that_contradict_their_operator_are_told(body: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        hub(body)
