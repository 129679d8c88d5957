"""Old operators give what they gave in their opset (onnxruntime runs both)."""

import pytest

from edgekit.errors import SourceError
from tests.hub.graphs import hub, operators, same

CASES = {
    "upsample_nearest_7": (
        7,
        "(float[1,2,3,3] x) => (float[1,2,6,6] y) { y = Upsample<mode='nearest', scales=[1.,1.,2.,2.]>(x) }",
    ),
    "upsample_linear_9": (
        9,
        "(float[1,2,3,3] x) => (float[1,2,6,6] y) <float[4] s = {1,1,2,2}> { y = Upsample<mode='linear'>(x, s) }",
    ),
    "resize_10": (10, "(float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1,1,2,2}> { y = Resize<mode='nearest'>(x, s) }"),
    "resize_10_shrinks": (
        10,
        "(float[1,1,6,6] x) => (float[1,1,2,2] y) <float[4] s = {1,1,0.34,0.34}> { y = Resize<mode='nearest'>(x, s) }",
    ),
    "resize_11_tf_nearest": (
        11,
        """(float[1,1,4,4] x) => (float[1,1,6,6] y) <float[0] r = {}, float[4] s = {1,1,1.5,1.5}> {
            y = Resize<mode='nearest', coordinate_transformation_mode='tf_half_pixel_for_nn', nearest_mode='floor'>(x, r, s) }""",
    ),
    "slice_1": (7, "(float[4,5] x) => (float[2,3] y) { y = Slice<axes=[0,1], starts=[1,-4], ends=[3,-1]>(x) }"),
    "topk_1": (7, "(float[2,6] x) => (float[2,3] y, int64[2,3] i) { y, i = TopK<k=3>(x) }"),
    "clip_6": (7, "(float[3,4] x) => (float[3,4] y) { y = Clip<min=-0.5, max=1.0>(x) }"),
    "pad_2": (7, "(float[2,3] x) => (float[4,6] y) { y = Pad<mode='constant', pads=[1,2,1,1], value=3.0>(x) }"),
    "pad_2_reflect": (7, "(float[1,1,4,4] x) => (float[1,1,6,6] y) { y = Pad<mode='reflect', pads=[0,0,1,1,0,0,1,1]>(x) }"),
    "split_2": (7, "(float[2,7] x) => (float[2,3] a, float[2,4] b) { a, b = Split<axis=1, split=[3,4]>(x) }"),
    "split_13_even": (13, "(float[2,6] x) => (float[2,3] a, float[2,3] b) { a, b = Split<axis=1>(x) }"),
    "squeeze_1": (7, "(float[1,3,1] x) => (float[3] y) { y = Squeeze<axes=[0,2]>(x) }"),
    "unsqueeze_1": (7, "(float[3] x) => (float[1,3,1] y) { y = Unsqueeze<axes=[0,2]>(x) }"),
    "reduce_sum_1": (7, "(float[2,3,4] x) => (float[2,4] y) { y = ReduceSum<axes=[1], keepdims=0>(x) }"),
    "reduce_mean_13": (13, "(float[2,3,4] x) => (float[2,3,1] y) { y = ReduceMean<axes=[-1]>(x) }"),
    "reduce_l2_all": (7, "(float[2,3] x) => (float[1,1] y) { y = ReduceL2(x) }"),
    "softmax_over_all": (7, "(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }"),
    "softmax_last": (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis=2>(x) }"),
    "log_softmax_middle": (11, "(float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax<axis=-2>(x) }"),
    "hardmax_over_all": (7, "(float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax(x) }"),
    "dropout_7": (7, "(float[2,3] x) => (float[2,3] y) { d = Dropout<ratio=0.3>(x) y = Relu(d) }"),
    "dropout_12": (12, "(float[2,3] x) => (float[2,3] y) <float r = {0.3}> { d = Dropout(x, r) y = Relu(d) }"),
    "dropout_12_mask": (12, "(float[2,3] x) => (float[2,3] y, bool[2,3] m) { d, m = Dropout(x) y = Relu(d) }"),
    "batch_norm_7": (
        7,
        """(float[1,2,3] x) => (float[1,2,3] y)
        <float[2] s = {1.5,2}, float[2] b = {0.5,1}, float[2] m = {0.1,0.2}, float[2] v = {0.5,2}>
        { y = BatchNormalization<epsilon=0.001>(x, s, b, m, v) }""",
    ),
    "scatter_9": (
        9,
        "(float[1,5] x) => (float[1,5] y) <int64[1,2] i = {1,3}, float[1,2] u = {7,8}> { y = Scatter<axis=1>(x, i, u) }",
    ),
    "roi_align_10": (
        10,
        """(float[1,1,6,6] x) => (float[1,1,2,2] y) <float[1,4] r = {0.3,0.7,4.2,4.9}, int64[1] i = {0}>
        { y = RoiAlign<output_height=2, output_width=2, sampling_ratio=2>(x, r, i) }""",
    ),
    "grid_sample_16": (
        16,
        "(float[1,1,4,4] x, float[1,2,2,2] g) => (float[1,1,2,2] y) { y = GridSample<mode='bilinear'>(x, g) }",
    ),
    "argmax_11": (11, "(float[2,5] x) => (int64[2,1] y) { y = ArgMax<axis=1>(x) }"),
}


@pytest.mark.parametrize("case", CASES)
def test_means_the_same(case: str) -> None:
    opset, body = CASES[case]
    model = same(f"g {body}".replace("'", '"'), opset=opset)
    assert model.opset_imports[""] == 20


def test_newer_opsets_stay() -> None:
    assert same("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", opset=22).opset_imports[""] == 22


def test_older_opsets_are_refused_with_a_remedy() -> None:
    with pytest.raises(SourceError, match="opset 6") as caught:
        hub("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=6)
    assert "version_converter" in str(caught.value)


def test_training_statistics_are_refused() -> None:
    with pytest.raises(SourceError, match="training statistics"):
        hub(
            """g (float[1,2,3] x, float[2] s, float[2] b, float[2] m, float[2] v) => (float[1,2,3] y, float[2] n)
            { y, n, w, p, q = BatchNormalization(x, s, b, m, v) }""",
            opset=9,
        )


def test_spatial_0_is_elementwise() -> None:
    # onnxruntime has no kernel for it: the definition is the reference.
    model = hub(
        """g (float[1,2] x) => (float[1,2] y) <float[2] s = {2,3}, float[2] b = {1,1}, float[2] m = {1,2}, float[2] v = {16,25}>
        { y = BatchNormalization<spatial=0, epsilon=0.0>(x, s, b, m, v) }""",
        opset=7,
    )
    assert operators(model) == {"Add": 2, "Mul": 1}


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(SourceError, match="no operator Frobnicate"):
        hub("g (float[2] x) => (float[2] y) { y = Frobnicate(x) }")


def test_erfc_of_tf2onnx() -> None:
    model = hub("g (float[3] x) => (float[3] y) { y = Erfc(x) }")
    assert operators(model) == {"Erf": 1, "Sub": 1}
