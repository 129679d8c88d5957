"""One small model per operator and case, compared with onnxruntime, with XNNPACK and with the builtin kernels alone.

Inputs are drawn for their type; a case that needs others (positive, indices …) says which in its name: `log@positive`.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx.reference import ReferenceEvaluator

from edgekit import litert
from edgekit.errors import CompileError

from .running import WITHOUT_DELEGATES, model, source_results

ELEMENTWISE = {
    "abs int64": "(int64[2,3] x) => (int64[2,3] y) { y = Abs(x) }",
    "acos@unit": "(float[50] x) => (float[50] y) { y = Acos(x) }",
    "acosh@above_one": "(float[50] x) => (float[50] y) { y = Acosh(x) }",
    "add int8 wraps": "(int8[2,3] x, int8[2,3] z) => (int8[2,3] y) { y = Add(x, z) }",
    "add uint64": "(uint64[2,3] x, uint64[3] z) => (uint64[2,3] y) { y = Add(x, z) }",
    "asin@unit": "(float[50] x) => (float[50] y) { y = Asin(x) }",
    "asinh": "(float[50] x) => (float[50] y) { y = Asinh(x) }",
    "atan": "(float[50] x) => (float[50] y) { y = Atan(x) }",
    "atanh@unit": "(float[50] x) => (float[50] y) { y = Atanh(x) }",
    "bitshift left": '(uint32[6] x) => (uint32[6] y) <uint32[6] n = {0,1,2,3,4,5}> { y = BitShift<direction="LEFT">(x, n) }',
    "bitshift right": '(uint8[6] x) => (uint8[6] y) <uint8[6] n = {0,1,2,3,6,7}> { y = BitShift<direction="RIGHT">(x, n) }',
    "cast large uint64": "(uint64[2,3] x) => (float[2,3] y, double[2,3] z, float16[2,3] h)"
    " <uint64 large = {9223372036854775808}>"
    " { u = Add(x, large) y = Cast<to=1>(u) z = Cast<to=11>(u) h = Cast<to=10>(u) }",
    "compare large uint64": "(uint64[2,3] x) => (bool[2,3] y, bool[2,3] z, uint64[2,3] m, uint64[2,3] n, bool[2,3] o)"
    " <uint64[3] c = {1, 9223372036854775808, 18446744073709551615}>"
    " { y = Greater(x, c) z = LessOrEqual(c, x) m = Max(x, c) n = Min(c, x) a = Add(x, c) o = Less(a, c) }",
    "bitwise and int32": "(int32[40] x, int32[40] z) => (int32[40] y) { y = BitwiseAnd(x, z) }",
    "bitwise and uint64": "(uint64[2,3] x, uint64[3] z) => (uint64[2,3] y) { y = BitwiseAnd(x, z) }",
    "bitwise or uint8": "(uint8[40] x, uint8[40] z) => (uint8[40] y) { y = BitwiseOr(x, z) }",
    "bitwise not int64": "(int64[40] x) => (int64[40] y) { y = BitwiseNot(x) }",
    "bitwise xor int16": "(int16[40] x, int16[40] z) => (int16[40] y) { y = BitwiseXor(x, z) }",
    "cosh": "(float[50] x) => (float[50] y) { y = Cosh(x) }",
    "div int8 towards zero": "(int8[40] x) => (int8[40] y) <int8[1] n = {7}> { y = Div(x, n) }",
    "float16 in, float16 out": "(float16[2,8] x, float16[8] z) => (float16[2,8] y) { a = Mul(x, z) y = Tanh(a) }",
    "float64": "(double[2,8] x) => (double[2,8] y) { a = Sin(x) y = Mul(a, x) }",
    "isinf": "(float[2,3] x) => (bool[2,3] y) <float z = {0}> { a = Div(x, z) y = IsInf<detect_negative=0>(a) }",
    "mod float": "(float[40] x) => (float[40] y) <float[1] n = {0.7}> { y = Mod<fmod=1>(x, n) }",
    "mod int32 fmod": "(int32[40] x) => (int32[40] y) <int32[1] n = {-7}> { y = Mod<fmod=1>(x, n) }",
    "mod int32": "(int32[40] x) => (int32[40] y) <int32[1] n = {-7}> { y = Mod(x, n) }",
    "pow of an integer": "(float[8] x) => (float[8] y) <int64[1] n = {3}> { y = Pow(x, n) }",
    "pow@positive": "(float[8] x, float[8] z) => (float[8] y) { y = Pow(x, z) }",
    "relu int32": "(int32[8] x) => (int32[8] y) { y = Relu(x) }",
    "shrink": "(float[8] x) => (float[8] y) { y = Shrink<lambd=0.5, bias=0.2>(x) }",
    "sign int64": "(int64[8] x) => (int64[8] y) { y = Sign(x) }",
    "sinh": "(float[50] x) => (float[50] y) { y = Sinh(x) }",
    "tan": "(float[50] x) => (float[50] y) { y = Tan(x) }",
}
PLACES = {
    "compress": "(float[4,3] x) => (float[2,3] y) <bool[4] c = {0,1,0,1}> { y = Compress<axis=0>(x, c) }",
    "cumsum int64": "(int64[2,4] x) => (int64[2,4] y) <int64 a = {-1}> { y = CumSum<exclusive=1, reverse=1>(x, a) }",
    "eyelike": "(float[3,5] x) => (int32[3,5] y) { y = EyeLike<dtype=6, k=1>(x) }",
    "gather from the end": "(float[4,3] x) => (float[2,3] y) <int64[2] i = {-1,0}> { y = Gather(x, i) }",
    "gather computed@indices": "(float[4,3] x, int64[2] i) => (float[2,3] y) { y = Gather(x, i) }",
    "gatherelements@indices": "(float[4,3] x, int64[2,3] i) => (float[2,3] y) { y = GatherElements(x, i) }",
    "gathernd in batches@indices": "(float[2,4,3] x, int64[2,1] i) => (float[2,3] y) { y = GatherND<batch_dims=1>(x, i) }",
    "hardmax": "(float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax<axis=1>(x) }",
    "nonzero": "(float[2,3] x) => (int64[2,n] y) <float[2,3] m = {0,1,0,1,1,0}> { a = Mul(x, m) y = NonZero(a) }",
    "onehot@indices": "(int64[5] i) => (float[5,4] y) <int64 d = {4}, float[2] v = {0.5,2}> { y = OneHot(i, d, v) }",
    "reversesequence": "(float[4,3] x) => (float[4,3] y) <int64[3] n = {2,4,1}>"
    " { y = ReverseSequence<time_axis=0, batch_axis=1>(x, n) }",
    "scatterelements": "(float[3,3] x, float[2,3] u) => (float[3,3] y) <int64[2,3] i = {0,1,2,2,0,1}>"
    " { y = ScatterElements(x, i, u) }",
    "scatterelements adds": (
        "(float[3,3] x, float[2,3] u) => (float[3,3] y) <int64[2,3] i = {0,1,2,0,1,-1}>"
        ' { y = ScatterElements<reduction="add">(x, i, u) }'
    ),
    "scatternd max": "(float[4,2] x, float[3,2] u) => (float[4,2] y) <int64[3,1] i = {1,1,3}>"
    ' { y = ScatterND<reduction="max">(x, i, u) }',
    "scatternd computed": "(float[4,2] x, float[2,2] u, int64 k) => (float[4,2] y) <int64[2,1] i = {1,3}, int64 z = {0}>"
    " { a = Mul(k, z) b = Add(i, a) y = ScatterND(x, b, u) }",
    "squeeze computed axes": "(float[1,3,1,5] x, int64[1] z) => (float[a,b,c] y) <int64[1] k = {-2}, int64[1] none = {0}>"
    " { o = Mul(z, none) a = Add(o, k) y = Squeeze(x, a) }",
    "unsqueeze computed axes": "(float[3,4] x, int64[2] z) => (float[a,b,c,d] y) <int64[2] k = {3,-4}, int64[2] none = {0,0}>"
    " { o = Mul(z, none) a = Add(o, k) y = Unsqueeze(x, a) }",
    "unsqueeze a number at computed axes": "(float x, int64[2] z) => (float[a,b] y) <int64[2] k = {0,1}, int64[2] none = {0,0}>"
    " { o = Mul(z, none) a = Add(o, k) y = Unsqueeze(x, a) }",
    "slice backwards": "(float[6,4] x) => (float[3,4] y) <int64[1] b={5}, int64[1] e={-100}, int64[1] a={0}, int64[1] s={-2}>"
    " { y = Slice(x, b, e, a, s) }",
    "topk smallest int8": "(int8[3,6] x) => (int8[3,2] v, int64[3,2] i) <int64[1] k = {2}>"
    " { v, i = TopK<largest=0, axis=1>(x, k) }",
    "topk along the first axis": "(float[6,3] x) => (float[2,3] v, int64[2,3] i) <int64[1] k = {2}>"
    " { v, i = TopK<axis=0>(x, k) }",
    "trilu computed": "(float[4,5] x) => (float[4,5] y) <int64 k = {1}> { y = Trilu<upper=0>(x, k) }",
}
REDUCTIONS = {
    "argmax of equal values": "(bool[3,4] b) => (int64[3,1] y) { x = Cast<to=1>(b) y = ArgMax<axis=1, select_last_index=1>(x) }",
    "cumsum": "(float[2,4] x) => (float[2,4] y) <int64 a = {1}> { y = CumSum(x, a) }",
    "maximum of int32": "(int32[2,6] x) => (int32[2] y) <int64[1] a = {1}> { y = ReduceMax<keepdims=0>(x, a) }",
    "reduce of bool": "(bool[2,6] x) => (bool[2] y) <int64[1] a = {1}> { y = ReduceMin<keepdims=0>(x, a) }",
    "reduce over computed axes@axes": "(float[2,3,4] x, int64[1] a) => (float[2,1,4] y) { y = ReduceMean(x, a) }",
    "reduce of nothing over computed axes@axes": "(float[2,0,4] x, int64[1] a) => (float[2,1,4] y) { y = ReduceProd(x, a) }",
    "reduce of nothing, axes dropped@axes": "(float[2,0,4] x, int64[1] a) => (float[m,n] y)"
    " { y = ReduceLogSumExp<keepdims=0>(x, a) }",
    "reduce of rank 5": "(float[2,3,4,2,2] x) => (float[2,4,2] y) <int64[2] a = {1,-1}> { y = ReduceL2<keepdims=0>(x, a) }",
    "logsumexp": "(float[2,6] x) => (float[2] y) <int64[1] a = {1}> { y = ReduceLogSumExp<keepdims=0>(x, a) }",
    "lpnormalization of nothing": "(float[2,3] x) => (float[2,3] y) <float z = {0}>"
    " { a = Mul(x, z) y = LpNormalization<p=2>(a) }",
}
SPATIAL = {
    "average pool 3d": "(float[1,2,6,6,6] x) => (float[1,2,3,3,3] y)"
    " { y = AveragePool<kernel_shape=[3,3,3], strides=[2,2,2], pads=[1,1,1,0,0,0]>(x) }",
    "average pool dilated": "(float[1,2,8,8] x) => (float[1,2,6,6] y)"
    " { y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x) }",
    "col2im": "(float[1,5,15] x) => (float[1,1,5,5] y) <int64[2] s = {5,5}, int64[2] k = {1,5}>"
    " { y = Col2Im<pads=[0,1,0,1]>(x, s, k) }",
    "conv with computed weights": "(float[1,2,5,5] x, float[4,2,3,3] w) => (float[1,4,5,5] y) { y = Conv<pads=[1,1,1,1]>(x, w) }",
    "convtranspose with computed weights": "(float[1,4,3,4] x, float[4,2,3,2] w, float[4] b) => (float[1,4,11,9] y)"
    " { y = ConvTranspose<group=2, strides=[2,2], dilations=[3,2]>(x, w, b) }",
    "convtranspose 3d": "(float[1,1,3,4,5] x, float[1,2,3,3,3] w) => (float[1,2,5,6,7] y) { y = ConvTranspose(x, w) }",
    "deformable convolution": "(float[2,4,7,9] x, float[2,24,4,7] o, float[2,12,4,7] m, float[6,2,3,2] w, float[6] b)"
    " => (float[2,6,4,7] y) { y = DeformConv<kernel_shape=[3,2], strides=[2,1], pads=[1,0,2,0], dilations=[1,2], group=2,"
    " offset_group=2>(x, w, o, b, m) }",
    "deformable convolution at given offsets": "(float[1,2,5,6] x, float[1,18,3,4] o, float[3,2,3,3] w)"
    " => (float[1,3,3,4] y) { y = DeformConv(x, w, o) }",
    "gridsample": "(float[2,3,5,6] x, float[2,4,4,2] g) => (float[2,3,4,4] y)"
    ' { y = GridSample<padding_mode="reflection">(x, g) }',
    "gridsample cubic": "(float[2,3,5,6] x, float[2,4,4,2] g) => (float[2,3,4,4] y)"
    ' { y = GridSample<mode="cubic", align_corners=1>(x, g) }',
    "gridsample nearest": '(float[2,3,5,6] x, float[2,4,4,2] g) => (float[2,3,4,4] y) { y = GridSample<mode="nearest">(x, g) }',
    "gridsample of a constant": "(float[1,3,3,2] g) => (float[1,2,3,3] y)"
    " <float[1,2,2,3] x = {0.5,-1,2,3,4,-5,6,7,-8,9,10,1}> { y = GridSample(x, g) }",
    "lp pool": "(float[1,3,8,8] x) => (float[1,3,4,4] y) { y = LpPool<kernel_shape=[2,2], strides=[2,2], p=3>(x) }",
    "max pool 3d": "(float[1,2,6,6,6] x) => (float[1,2,3,3,3] y) { y = MaxPool<kernel_shape=[2,2,2], strides=[2,2,2]>(x) }",
    "max pool dilated": "(float[1,2,9,9] x) => (float[1,2,5,5] y) { y = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(x) }",
    "max pool with places": "(float[1,2,8,8] x) => (float[1,2,4,4] y, int64[1,2,4,4] i)"
    " { y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
    "max unpool": "(float[1,1,2,2] x) => (float[1,1,4,4] y) <int64[1,1,2,2] i = {5,7,13,15}>"
    " { y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i) }",
    "resize in proportion": "(float[1,2,5,7] x) => (float[1,2,6,9] y) <int64[2] n = {8,9}>"
    ' { y = Resize<mode="linear", axes=[2,3], keep_aspect_ratio_policy="not_larger">(x, , , n) }',
    "resize of a signal": '(float[1,3,8] x) => (float[1,3,16] y) <float[3] s = {1,1,2}> { y = Resize<mode="linear">(x, , s) }',
    "resize of a volume": "(float[1,2,3,4,5] x) => (float[1,2,6,8,10] y) <float[5] s = {1,1,2,2,2}>"
    ' { y = Resize<mode="linear">(x, , s) }',
    "resize of a region": "(float[1,1,4,4] x) => (float[1,1,3,3] y) <float[8] r = {0,0,0.4,0.6,1,1,1.2,0.8},"
    " int64[4] n = {1,1,3,3}>"
    ' { y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=3.0>(x, r, , n) }',
    "roi align": "(float[2,3,6,7] x, float[4,4] r) => (float[4,3,2,3] y) <int64[4] i = {0,1,1,0}>"
    " { y = RoiAlign<output_height=2, output_width=3, sampling_ratio=2, spatial_scale=2.0>(x, r, i) }",
    "roi align of the largest": "(float[2,3,6,7] x, float[4,4] r) => (float[4,3,3,2] y) <int64[4] i = {0,1,1,0}>"
    ' { y = RoiAlign<mode="max", coordinate_transformation_mode="output_half_pixel", output_height=3, output_width=2,'
    " sampling_ratio=3, spatial_scale=1.5>(x, r, i) }",
    "roi align of one sample": "(float[1,3,6,7] x, float[4,4] r) => (float[4,3,2,2] y) <int64[4] i = {0,0,0,0}>"
    " { y = RoiAlign<output_height=2, output_width=2, sampling_ratio=1>(x, r, i) }",
    "space to depth": "(float[1,2,4,6] x) => (float[1,8,2,3] y) { y = SpaceToDepth<blocksize=2>(x) }",
}
OTHERS = {
    "batch normalization of computed statistics": "(float[2,3,4] x, float[3] s, float[3] b, float[3] m) => (float[2,3,4] y)"
    " { v = Mul(m, m) y = BatchNormalization(x, s, b, m, v) }",
    "determinant": "(float[2,3,3] x) => (float[2] y) { y = Det(x) }",
    "dft": "(float[1,8,1] x) => (float[1,5,2] y) <int64 n = {8}, int64 a = {1}> { y = DFT<onesided=1>(x, n, a) }",
    "einsum of a diagonal in batches": "(float[2,3,4,4] x, float[1,3,4,5] z) => (float[2,3,5] y)"
    ' { y = Einsum<equation="...ii,...ik->...k">(x, z) }',
    "inverse dft of another axis": "(float[1,8,3,2] x) => (float[1,8,3,2] y) <int64 n = {8}, int64 a = {1}>"
    " { y = DFT<inverse=1>(x, n, a) }",
    "layer normalization with statistics": "(float[2,3,8] x, float[8] s) => (float[2,3,8] y, float[2,3,1] m)"
    " { y, m = LayerNormalization(x, s) }",
    "matmul of uint8": "(uint8[2,6] x, uint8[6,3] z) => (int32[2,3] y) <uint8 p = {12}, uint8 q = {3}>"
    " { y = MatMulInteger(x, z, p, q) }",
    "mean variance normalization": "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = MeanVarianceNormalization(x) }",
    "nms": "(float[1,8,4] b, float[1,2,8] s) => (int64[n,3] y) <int64[1] k = {4}, float[1] t = {0.4}>"
    " { y = NonMaxSuppression(b, s, k, t) }",
    "nms of as many as an input says@classes": "(float[1,8,4] b, float[1,2,8] s, int64[1] k) => (int64[n,3] y)"
    " <float[1] t = {0.4}> { y = NonMaxSuppression(b, s, k, t) }",
    "nms without a limit that counts": "(float[1,8,4] b, float[1,2,8] s, int64[1] k) => (int64[n,3] y)"
    " <float[1] t = {0.4}, int64[1] z = {0}, int64[1] m = {9223372036854775807}>"
    " { o = Mul(k, z) l = Add(o, m) y = NonMaxSuppression(b, s, l, t) }",
    "pad crops": "(float[2,3,4] x) => (float[2,2,7] y) <int64[6] p = {0,-1,1,0,0,2}> { y = Pad(x, p) }",
    "pad with edges by computed amounts@amounts": '(float[4,3] x, int64[4] p) => (float[h,w] y) { y = Pad<mode="edge">(x, p) }',
    "pad with reflections by computed amounts@amounts": "(float[4,3] x, int64[2] p) => (float[4,w] y) <int64[1] a = {-1}>"
    ' { y = Pad<mode="reflect">(x, p, , a) }',
    "pad around by computed amounts@amounts": '(float[4,3] x, int64[4] p) => (float[h,w] y) { y = Pad<mode="wrap">(x, p) }',
    "pad by computed amounts@amounts": "(float[4,4] x, int64[4] p) => (float[h,w] y) { y = Pad(x, p) }",
    "softmax cross entropy@classes": "(float[3,5] x, int64[3] t) => (float y) { y = SoftmaxCrossEntropyLoss(x, t) }",
    "tfidf, weighted@classes": '(int64[2,9] x) => (float[2,7] y) { y = TfIdfVectorizer<mode="TFIDF", max_gram_length=3,'
    " max_skip_count=1, min_gram_length=1, ngram_counts=[0,3,9], ngram_indexes=[2,0,1,4,3,5,6],"
    " pool_int64s=[1,2,4,0,1,3,2,1,1,0,1,2], weights=[0.5,1,2,3,4,5,6]>(x) }",
    "tfidf, present or not@classes": '(int32[9] x) => (float[7] y) { y = TfIdfVectorizer<mode="IDF", max_gram_length=2,'
    " max_skip_count=0, min_gram_length=2, ngram_counts=[0,3,9], ngram_indexes=[2,0,1,4,3,5,6],"
    " pool_int64s=[1,2,4,0,1,3,2,1,1,0,1,2], weights=[0.5,1,2,3,4,5,6]>(x) }",
    "tfidf in shared columns@classes": '(int64[2,9] x) => (float[2,5] y) { y = TfIdfVectorizer<mode="TF", max_gram_length=2,'
    " max_skip_count=3, min_gram_length=1, ngram_counts=[0,3,9], ngram_indexes=[2,0,0,4,4,4,2],"
    " pool_int64s=[1,2,4,0,1,3,2,1,1,0,1,2]>(x) }",
    "tfidf of less than an n-gram@classes": '(int64[2,2] x) => (float[2,1] y) { y = TfIdfVectorizer<mode="TF",'
    " max_gram_length=3, max_skip_count=0, min_gram_length=3, ngram_counts=[0,0,0], ngram_indexes=[0],"
    " pool_int64s=[0,1,2]>(x) }",
    "unique@classes": "(int64[3,4] x) => (int64[n] y, int64[n] i, int64[12] v, int64[n] c) { y, i, v, c = Unique(x) }",
    "unique as they come@classes": "(int64[9] c) => (float[n] y, int64[9] v) { x = Cast<to=1>(c) y, i, v = Unique<sorted=0>(x) }",
    "unique columns": "(float[3,6] x) => (float[3,n] y, int64[6] v) <float[3,6] z = {0,1,0,1,1,0, 0,1,1,0,1,1, 0,0,1,0,0,1}>"
    " { a = Mul(x, z) s = Sign(a) y, , v = Unique<axis=1>(s) }",
    "slice by a huge step": "(float[5,6] x) => (float[1,1] y)"
    " <int64[2] b = {4, 1}, int64[2] e = {-9, 6}, int64[2] a = {0, 1}, int64[2] s = {-35747322042253315, 4611686018427387904}>"
    " { y = Slice(x, b, e, a, s) }",
    "split to a sequence": "(float[5,3] x) => (float[3] y) <int64 i = {-2}>"
    " { s = SplitToSequence<keepdims=0>(x) y = SequenceAt(s, i) }",
    "stft": "(float[1,64,1] x) => (float[1,7,9,2] y) <int64 s = {8}, int64 n = {16}> { y = STFT<onesided=1>(x, s, , n) }",
}
CASES = ELEMENTWISE | PLACES | REDUCTIONS | SPATIAL | OTHERS


@pytest.mark.parametrize("name", CASES)
def test_as_onnxruntime(name: str) -> None:
    source = model(f"net {CASES[name]}")
    feeds = draw(source, name.partition("@")[2])
    expected = source_results(source, feeds)
    data = litert.compile(source)
    for kernels in ({}, {"experimental_op_resolver_type": WITHOUT_DELEGATES}):
        results = Interpreter(model_content=data, **kernels).get_signature_runner()(**feeds)
        for output, want in expected.items():
            have = results[output]
            assert have.dtype == want.dtype
            assert have.shape == want.shape
            narrow = want.dtype == np.float16
            np.testing.assert_allclose(have, want, rtol=2e-3 if narrow else 2e-5, atol=2e-3 if narrow else 2e-5)


REFUSED = {
    "integers to negative powers": "(int32[3] x) => (int32[3] y) <int32[3] e = {2, -1, 0}> { y = Pow(x, e) }",
    "columns that are no image": "(float[1,5,15] x) => (float[1,1,5,5] y) <int64[2] i = {5,5}, int64[2] b = {1,5}>"
    " { y = Col2Im<pads=[0,1,-2,1]>(x, i, b) }",
    "training": "(float[4] x) => (float[4] y) <float r = {0.5}, bool t = {1}> { y = Dropout(x, r, t) }",
    "random numbers": "(float[4] x) => (float[4] y) { y = RandomUniformLike(x) }",
    "as many samples as a box is large": "(float[1,1,4,4] x, float[1,4] r) => (float[1,1,2,2] y) <int64[1] i = {0}>"
    " { y = RoiAlign<output_height=2, output_width=2>(x, r, i) }",
    "words": '(string[4] x) => (float[2] y) { y = TfIdfVectorizer<mode="TF", max_gram_length=1, max_skip_count=0,'
    ' min_gram_length=1, ngram_counts=[0], ngram_indexes=[0,1], pool_strings=["a","b"]>(x) }',
    "n-grams of several weights in one place": '(int64[4] x) => (float[1] y) { y = TfIdfVectorizer<mode="IDF",'
    " max_gram_length=1, max_skip_count=0, min_gram_length=1, ngram_counts=[0], ngram_indexes=[0,0], pool_int64s=[3,4],"
    " weights=[1.0,2.0]>(x) }",
    "resize that averages as much as its sizes ask for": "(float[1,1,4,4] x, int64[4] s) => (float[a,b,c,d] y)"
    ' { y = Resize<mode="linear", antialias=1>(x, , , s) }',
    "ambiguous resize": "(float[1,1,4,4] x) => (float[1,1,3,3] y) <float[4] s = {1,1,0.8,0.8}>"
    ' { y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , s) }',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(CompileError) as error:
        litert.compile(model(f"net {REFUSED[name]}"))
    assert error.value.where
    assert error.value.fix


DYNAMIC = {
    "roi align": "(float[n,4] x) => (float[n,2,2,2] y) <int64[1] a = {1}, float z = {0},"
    " float[1,2,3,3] m = {0.5,-1,2,3,4,-5,6,7,-8,9,10,1,2,3,4,5,6,7}> { b = Mul(x, z) s = ReduceSum<keepdims=0>(b, a)"
    " i = Cast<to=7>(s) y = RoiAlign<output_height=2, output_width=2, sampling_ratio=2, spatial_scale=2.0>(m, x, i) }",
    "slice": "(float[n,6] x) => (float[n,3] y) <int64[1] b={5}, int64[1] e={-100}, int64[1] a={1}, int64[1] s={-2}>"
    " { y = Slice(x, b, e, a, s) }",
    "reductions and softmax": "(float[n,6] x) => (float[n,6] y) <int64[1] a = {1}>"
    " { m = ReduceMax(x, a) d = Sub(x, m) y = Softmax(d) }",
    "gather": "(float[n,6] x) => (float[n,2] y) <int64[2] i = {0,-1}> { y = Gather<axis=1>(x, i) }",
    "topk": "(float[n,6] x) => (float[n,2] v, int64[n,2] i) <int64[1] k = {2}> { v, i = TopK(x, k) }",
    "pool": "(float[n,2,6,6] x) => (float[n,2,3,3] y) { y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
    "resize by a whole factor": "(float[1,2,n,n] x) => (float[1,2,h,w] y) <float[4] s = {1,1,2,2}>"
    ' { y = Resize<mode="linear">(x, , s) }',
    "resize of a batch": "(float[n,2,4,5] x) => (float[n,2,6,7] y) <float[4] f = {1,1,1.5,1.4}>"
    ' { y = Resize<mode="cubic">(x, , f) }',
    "resize to the size of another": "(float[n,2,n,4] x) => (float[n,2,h,w] y) <int64[1] z = {0}, int64[1] two = {2},"
    " int64[1] four = {4}, int64[1] a = {0}, int64[1] t = {3}> { s = Shape(x) b = Slice(s, z, two, a) c = Slice(s, two, four, a)"
    ' d = Mul(c, t) e = Concat<axis=0>(b, d) y = Resize<mode="nearest">(x, , , e) }',
    "split": "(float[n,6] x) => (float[n,2] y, float[n,4] z) <int64[2] s = {2,4}> { y, z = Split<axis=1>(x, s) }",
    "gelu and erf": "(float[n,6] x) => (float[n,6] y) { a = Gelu(x) y = Erf(a) }",
}


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_batch_that_stays_dynamic(name: str) -> None:
    source = model(f"net {DYNAMIC[name]}")
    interpreter = Interpreter(model_content=litert.compile(source))
    for batch in (1, 3):
        shape = [d.dim_value or batch for d in source.graph.input[0].type.tensor_type.shape.dim]
        feeds = {"x": np.random.default_rng(batch).normal(size=shape).astype(np.float32)}
        results = interpreter.get_signature_runner()(**feeds)
        for output, want in source_results(source, feeds).items():
            np.testing.assert_allclose(results[output], want, rtol=2e-5, atol=2e-5)


def test_float64_is_rounded_and_says_so() -> None:
    from edgekit import hub

    compiled = litert.compile_hub(hub.prepare(litert._read(model("net (double[4] x) => (double[4] y) { y = Exp(x) }"))))
    assert compiled.inputs[0].dtype == "float64"
    assert any("float64" in note for note in compiled.notes)


COMPUTED_RESIZES = [
    *((mode, where, "") for mode in ("linear", "cubic") for where in ("pytorch_half_pixel", "align_corners", "asymmetric")),
    *(("nearest", "half_pixel", rounding) for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    *(("nearest", where, "floor") for where in ("align_corners", "asymmetric")),
    ("linear", "half_pixel", ""),
    ("cubic", "half_pixel_symmetric", ""),
]


@pytest.mark.parametrize(("mode", "where", "rounding"), COMPUTED_RESIZES)
def test_resize_to_sizes_that_are_computed(mode: str, where: str, rounding: str) -> None:
    more = f', nearest_mode="{rounding}"' if rounding else ""
    attributes = f'mode="{mode}", coordinate_transformation_mode="{where}"{more}'
    source = model(f"net (float[1,2,5,7] x, int64[4] s) => (float[a,b,c,d] y) {{ y = Resize<{attributes}>(x, , , s) }}")
    interpreter = Interpreter(model_content=litert.compile(source))
    x = draw(source, "")["x"]
    for size in ((10, 14), (3, 9), (1, 4), (5, 7)):
        feeds = {"x": x, "s": np.array([1, 2, *size])}
        results = interpreter.get_signature_runner()(**feeds)
        np.testing.assert_allclose(results["y"], source_results(source, feeds)["y"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_in_proportion_to_sizes_that_are_computed(policy: str) -> None:
    attributes = f'mode="linear", axes=[2,3], keep_aspect_ratio_policy="{policy}"'
    source = model(f"net (float[1,2,5,7] x, int64[2] s) => (float[a,b,c,d] y) {{ y = Resize<{attributes}>(x, , , s) }}")
    interpreter = Interpreter(model_content=litert.compile(source))
    x = draw(source, "")["x"]
    for size in ((10, 14), (3, 9), (8, 4), (5, 8) if policy == "not_larger" else (5, 6)):
        feeds = {"x": x, "s": np.array(size)}
        results = interpreter.get_signature_runner()(**feeds)
        np.testing.assert_allclose(results["y"], source_results(source, feeds)["y"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_by_scales_that_are_computed(mode: str) -> None:
    source = model(f'net (float[1,2,5,7] x, float[4] s) => (float[a,b,c,d] y) {{ y = Resize<mode="{mode}">(x, , s) }}')
    interpreter = Interpreter(model_content=litert.compile(source))
    x = draw(source, "")["x"]
    for scales in ((2, 1.3), (0.7, 1), (1.01, 1.02)):  # the last ones change no size: onnxruntime does nothing
        feeds = {"x": x, "s": np.array([1, 1, *scales], np.float32)}
        results = interpreter.get_signature_runner()(**feeds)
        np.testing.assert_allclose(results["y"], source_results(source, feeds)["y"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("axis", [-2, 0, 1, 2])
def test_cumulative_products_along_an_axis_that_is_computed(axis: int) -> None:
    source = model("net (float[2,3,4] x, int64 a) => (float[2,3,4] y) { y = CumProd<exclusive=1, reverse=1>(x, a) }", 26)
    feeds = draw(source, "") | {"a": np.array(axis)}
    (want,) = ReferenceEvaluator(source).run(None, feeds)
    results = Interpreter(model_content=litert.compile(source)).get_signature_runner()(**feeds)
    np.testing.assert_allclose(results["y"], want, rtol=1e-6)


def test_unique_takes_nan_for_one_value_that_comes_last() -> None:
    x = np.array([3, np.nan, -0.0, 0.0, np.nan, 1], np.float32)
    source = model("net (float[6] x) => (float[n] y, int64[n] i, int64[6] v, int64[n] c) { y, i, v, c = Unique(x) }")
    results = Interpreter(model_content=litert.compile(source)).get_signature_runner()(x=x)
    for name, want in zip("yivc", np.unique(x, True, True, True), strict=True):
        np.testing.assert_array_equal(results[name], want)


def draw(source: onnx.ModelProto, kind: str) -> dict[str, np.ndarray]:
    """Inputs by type and shape; `kind` says what the integers or floats have to be."""
    generator = np.random.default_rng(7)
    feeds = {}
    for value in source.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if dtype.kind == "f":
            low, high = {"unit": (-0.95, 0.95), "positive": (0.1, 3), "above_one": (1, 4)}.get(kind, (-2.5, 2.5))
            feeds[value.name] = generator.uniform(low, high, shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[value.name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            low, high = {"indices": (-4, 4), "axes": (1, 2), "amounts": (-1, 3), "classes": (0, 5)}.get(kind, (-100, 100))
            feeds[value.name] = generator.integers(max(low, 0) if dtype.kind == "u" else low, high, shape).astype(dtype)
    return feeds
