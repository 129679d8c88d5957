"""fp16 .tflite files: which constants may lose bits."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit import hub
from edgekit.litert import compile_hub


def spectrum(last: str) -> onnx.ModelProto:
    """A filter bank of windowed sinusoids over 256 samples, its power, and one more operator."""
    time = np.arange(256)
    window = np.blackman(256)
    filters = np.stack([window * np.cos(2 * np.pi * k * time / 256) for k in range(4, 36)])[:, None].astype(np.float32)
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 18]>
        bank (float[1, 1, 1024] wave) => (float[1, 32, 13] result) {{
            heard = Conv<strides = [64]>(wave, filters)
            power = Mul(heard, heard)
            result = {last}(power)
        }}""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(filters, "filters"))
    return model


def compiled(last, precision):
    return compile_hub(hub.prepare(ir.from_proto(spectrum(last))), precision=precision)


def run(artifact, wave):
    interpreter = Interpreter(model_content=artifact.data)
    return interpreter.get_signature_runner()(wave=wave)["result"]


def test_filters_before_a_logarithm_stay_float32():
    """A tone beside all filters: what comes out is leakage, and the logarithm shows it."""
    wave = np.sin(2 * np.pi * 100.3 * np.arange(1024) / 256).astype(np.float32)[None, None]
    exact, half = compiled("Log", "fp32"), compiled("Log", "fp16")
    np.testing.assert_allclose(run(half, wave), run(exact, wave), rtol=1e-3)
    assert half.notes == (
        "the filters before a logarithm stay float32 (2 of their constants): in half precision their leakage would show",
    )


@pytest.mark.parametrize("last", ["Sigmoid", "Sqrt"])
def test_other_filters_are_stored_in_half_precision(last):
    exact, half = compiled(last, "fp32"), compiled(last, "fp16")
    assert half.notes == ()
    assert half.operators["DEQUANTIZE"] == 2, "the filters and the zero bias that CONV_2D takes"
    assert len(half.data) < 0.65 * len(exact.data)


@pytest.mark.parametrize("scale", [1e-6, 1e7])
def test_a_constant_out_of_the_range_of_half_precision_stays_float32(scale):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        scaled (float[1, 4] x) => (float[1, 16] y) { y = MatMul(x, w) }""")
    w = (np.random.default_rng(0).uniform(0.1, 1, (4, 16)) * scale).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    half = compile_hub(hub.prepare(ir.from_proto(model)), precision="fp16")
    x = np.float32([[1, 2, 3, 4]])
    got = Interpreter(model_content=half.data).get_signature_runner()(x=x)["y"]
    np.testing.assert_allclose(got, x @ w, rtol=1e-6)
    assert any("stays float32: its largest value is" in note for note in half.notes)


def test_equal_constants_are_expanded_once_and_noted_once():
    """Convolutions without a bias all take the same zeros, those with one here the same that half precision cannot hold."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        twice (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y) {
            a = Conv(x, w)
            b = Tanh(a)
            c = Conv(b, w2)
            d = Tanh(c)
            e = Conv(d, v, small)
            f = Tanh(e)
            y = Conv(f, v2, small2)
        }""")
    rng = np.random.default_rng(0)
    w, v = (rng.normal(size=(8, 8, 1, 1)).astype(np.float32) for _ in "wv")
    small = np.full(8, 1e-6, np.float32)
    constants = {"w": w, "w2": w, "v": v, "v2": v, "small": small, "small2": np.append(small[:7], np.float32(5e-7))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    prepared = hub.prepare(ir.from_proto(model))
    exact, half = compile_hub(prepared), compile_hub(prepared, precision="fp16")
    assert half.operators["DEQUANTIZE"] == 3, "w, v and the zeros"
    assert len(half.notes) == 1
    x = rng.normal(size=(1, 8, 4, 4)).astype(np.float32)
    wanted, got = (Interpreter(model_content=c.data).get_signature_runner()(x=x)["y"] for c in (exact, half))
    np.testing.assert_allclose(got, wanted, atol=1e-2)
