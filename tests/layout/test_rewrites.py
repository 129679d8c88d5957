"""What becomes of the shapes of graph that networks are made of."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from edgekit.layout import CHANNELS_LAST, to_channels_last
from tests.layout.onnx_form import run, written_out

RANDOM = np.random.default_rng(0)


def model(text: str, **constants: tuple[int, ...] | np.ndarray) -> onnx.ModelProto:
    """A graph in ONNX's text form; a constant that is given by its shape holds noise."""
    graph = onnx.parser.parse_graph(text)
    for name, given in constants.items():
        array = given if isinstance(given, np.ndarray) else RANDOM.normal(size=given).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(array, name))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def operators(proto: onnx.ModelProto, **layouts: str) -> Counter[str]:
    """The operators after `to_channels_last`, having checked that they compute the same."""
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    feeds = {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    changed = ir.from_proto(proto)
    held = to_channels_last(changed, **layouts)
    found = Counter(node.op_type for node in changed.graph)
    got = run(written_out(changed), {name: array.transpose(held.inputs[name]) for name, array in feeds.items()})
    for name, expected in run(proto, feeds).items():
        np.testing.assert_allclose(got[name].transpose(np.argsort(held.outputs[name])), expected, rtol=0, atol=1e-4)
    return found


def test_a_flatten_before_a_product_permutes_the_weights() -> None:
    proto = model(
        """g (float[1,3,8,8] x) => (float[1,10] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)  b = Flatten(a)  c = Mul(b, s)  d = Sigmoid(c)  e = Mul(c, d)
            y = Gemm<transB=1>(e, m, n)
        }""",
        w=(4, 3, 3, 3), s=(256,), m=(10, 256), n=(10,),
    )  # fmt: skip
    assert "Transpose" not in operators(proto, input_layout="nhwc")


def test_a_dense_layer_that_becomes_a_feature_map_permutes_its_columns_and_bias() -> None:
    proto = model(
        """g (float[1,7] z) => (float[1,3,4,4] y) {
            a = MatMul(z, m)  b = Add(a, n)  c = Relu(b)  d = Reshape(c, s)  y = Conv<pads=[1,1,1,1]>(d, w)
        }""",
        m=(7, 128), n=(128,), s=numbers(1, 8, 4, 4), w=(3, 8, 3, 3),
    )  # fmt: skip
    assert "Transpose" not in operators(proto, output_layout="nhwc")


def test_a_flattened_vector_that_is_an_output_keeps_its_order() -> None:
    proto = model(
        """g (float[1,3,8,8] x) => (float[1,256] f, float[1,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)  f = Flatten(a)  y = MatMul(f, m)
        }""",
        w=(4, 3, 3, 3), m=(256, 5),
    )  # fmt: skip
    assert operators(proto, input_layout="nhwc")["Transpose"] == 1


def test_squeeze_and_excitation_through_matrices_needs_no_transpose() -> None:
    proto = model(
        """g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)  p = GlobalAveragePool(a)  f = Flatten(p)  h = Gemm(f, m)  r = Relu(h)
            g2 = Gemm(r, n)  s = Sigmoid(g2)  e = Reshape(s, shape)  y = Mul(a, e)
        }""",
        w=(8, 8, 3, 3), m=(8, 2), n=(2, 8), shape=numbers(1, 8, 1, 1),
    )  # fmt: skip
    assert "Transpose" not in operators(proto, input_layout="nhwc", output_layout="nhwc")


def test_a_convnext_block_needs_no_transpose() -> None:
    proto = model(
        """g (float[1,8,6,6] x) => (float[1,8,6,6] y) {
            a = Conv<pads=[1,1,1,1], group=8>(x, w)  b = Transpose<perm=[0,2,3,1]>(a)  c = LayerNormalization(b, s, t)
            d = MatMul(c, m)  e = Mul(d, k)  f = Transpose<perm=[0,3,1,2]>(e)  y = Add(x, f)
        }""",
        w=(8, 1, 3, 3), s=(8,), t=(8,), m=(8, 8), k=(8,),
    )  # fmt: skip
    assert "Transpose" not in operators(proto, input_layout="nhwc", output_layout="nhwc")


def test_cutting_an_image_into_patches_is_one_transpose() -> None:
    """MobileViT's unfolding, which PyTorch spells Reshape, Transpose, Reshape, Transpose."""
    proto = model(
        """g (float[1,3,8,8] x) => (float[1,4,16,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)  b = Reshape(a, s)  c = Transpose<perm=[0,2,1,3]>(b)  d = Reshape(c, t)
            e = Transpose<perm=[0,3,2,1]>(d)  y = MatMul(e, m)
        }""",
        w=(6, 3, 3, 3), s=numbers(24, 2, 4, 2), t=numbers(1, 6, 16, 4), m=(6, 5),
    )  # fmt: skip
    assert operators(proto, input_layout="nhwc")["Transpose"] == 1


def test_softmax_over_channels_acts_on_the_last_axis() -> None:
    proto = model(
        "g (float[1,3,4,5] x) => (float[1,6,4,5] y) { a = Conv<pads=[1,1,1,1]>(x, w)  y = Softmax<axis=1>(a) }", w=(6, 3, 3, 3)
    )
    changed = ir.from_proto(proto)
    to_channels_last(changed, input_layout="nhwc", output_layout="nhwc")
    conv, softmax = changed.graph
    assert (conv.domain, softmax.attributes["axis"].as_int()) == (CHANNELS_LAST, 3)
    assert "Transpose" not in operators(proto, input_layout="nhwc", output_layout="nhwc")


def test_attention_takes_its_keys_as_they_are() -> None:
    proto = model(
        """g (float[1,6,32] x) => (float[1,4,6,6] y) {
            q = MatMul(x, m)  q4 = Reshape(q, s)  qt = Transpose<perm=[0,2,1,3]>(q4)
            k = MatMul(x, n)  k4 = Reshape(k, s)  kt = Transpose<perm=[0,2,3,1]>(k4)  y = MatMul(qt, kt)
        }""",
        m=(32, 32), n=(32, 32), s=numbers(1, 6, 4, 8),
    )  # fmt: skip
    changed = ir.from_proto(proto)
    to_channels_last(changed)
    (product,) = [node for node in changed.graph if node.domain == CHANNELS_LAST]
    assert (product.op_type, product.attributes["adj_y"].as_int()) == ("MatMul", 1)
    orders = [tuple(node.attributes["perm"].as_ints()) for node in changed.graph if node.op_type == "Transpose"]
    assert orders == [(0, 2, 1, 3), (0, 2, 1, 3)]
    operators(proto)


def test_the_example_of_the_documentation() -> None:
    """An operator without a rule (here Einsum) reads a feature map in the logical order and gives one channel back."""
    proto = model(
        """g (float[1,32,32,3] x) => (float[1,10] y) {
            t1 = Transpose<perm=[0,3,1,2]>(x)  a = Conv<pads=[1,1,1,1]>(t1, w)  u = Einsum<equation="nchw,cd->ndhw">(a, k)
            b = Relu(a)  c = Add(b, u)  g2 = GlobalAveragePool(c)  f = Flatten(g2)  y = Gemm(f, m)
        }""",
        w=(16, 3, 3, 3), k=(16, 1), m=(16, 10),
    )  # fmt: skip
    assert operators(proto)["Transpose"] == 1


@pytest.mark.parametrize(("layout", "shape"), [("keep", [1, 3, 8, 8]), ("nhwc", [1, 8, 8, 3]), ("nchw", [1, 3, 8, 8])])
def test_the_input_is_held_as_asked(layout: str, shape: list[int]) -> None:
    proto = model("g (float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", w=(4, 3, 3, 3))
    changed = ir.from_proto(proto)
    to_channels_last(changed, input_layout=layout)
    assert changed.graph.inputs[0].shape == shape
    assert changed.graph.outputs[0].shape == [1, 4, 8, 8]
    assert changed.graph.outputs[0].name == "y"
    operators(proto, input_layout=layout)


def test_an_image_that_arrives_channels_last_can_be_asked_for_channels_first() -> None:
    proto = model(
        "g (float[1,8,9,3] x) => (float[1,4,8,9] y) { t = Transpose<perm=[0,3,1,2]>(x)  y = Conv<pads=[1,1,1,1]>(t, w) }",
        w=(4, 3, 3, 3),
    )
    changed = ir.from_proto(proto)
    held = to_channels_last(changed, input_layout="nchw")
    assert held.inputs == {"x": (0, 3, 1, 2)}
    assert changed.graph.inputs[0].shape == [1, 3, 8, 9]
    assert operators(proto, input_layout="nhwc", output_layout="nhwc") == {"Conv": 1}


def test_a_value_read_inside_a_branch_arrives_in_the_logical_order() -> None:
    proto = model(
        """g (float[1,3,4,5] x, bool flag) => (float[1,4,4,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w)  b = Relu(a)
            y = If (flag) <
                then_branch = t () => (float[1,4,4,5] p) { p = CumSum(b, axis) },
                else_branch = e () => (float[1,4,4,5] q) { q = Neg(b) }
            >
        }""",
        w=(4, 3, 3, 3), axis=np.array(1, np.int64),
    )  # fmt: skip
    changed = ir.from_proto(proto)
    to_channels_last(changed)
    x = RANDOM.normal(size=(1, 3, 4, 5)).astype(np.float32)
    for flag in (True, False):
        feeds = {"x": x, "flag": np.array(flag)}
        np.testing.assert_allclose(run(written_out(changed), feeds)["y"], run(proto, feeds)["y"], atol=1e-4)


def test_the_shape_of_a_value_is_its_logical_shape() -> None:
    proto = model(
        "g (float[1,3,4,5] x) => (float[1,6,4,5] y, int64[2] s) { y = Conv<pads=[1,1,1,1]>(x, w)  s = Shape<start=1,end=3>(y) }",
        w=(6, 3, 3, 3),
    )
    assert operators(proto, input_layout="nhwc", output_layout="nhwc")["Transpose"] == 0


def test_a_product_that_is_wanted_transposed_exchanges_its_operands() -> None:
    """Attention of LeViT and EfficientViT: values (d, s) times scores' transposed, between feature maps in channels last."""
    proto = model(
        """g (float[1,16,4,4] x, float[1,16,16] a) => (float[1,8,4,4] y) {
            c = Conv(x, w)  v = Reshape(c, flat)
            t = Transpose<perm=[0,2,1]>(a)
            p = MatMul(v, t)  i = Reshape(p, image)  y = Conv<pads=[1,1,1,1]>(i, u)
        }""",
        w=(8, 16, 1, 1), u=(8, 8, 3, 3), flat=numbers(1, 8, 16), image=numbers(1, 8, 4, 4),
    )  # fmt: skip
    assert "Transpose" not in operators(proto, input_layout="nhwc", output_layout="nhwc")
