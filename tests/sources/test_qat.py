"""Models trained with quantization arrive as the integers that they were trained with, from PyTorch and from Keras."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from edgekit import litert
from edgekit.contract import TensorSpec
from edgekit.errors import QuantizeError
from edgekit.export import export
from edgekit.hub import prepare
from edgekit.hub.quantized import KEPT
from edgekit.litert import Compiled
from edgekit.sources import Source, open_source
from edgekit.sources.quantized_file import is_quantized_file
from tests.litert.quantized_models import computing
from tests.litert.running import artifact_results, source_results

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tests.sources import qat_networks  # noqa: E402  (needs torch and scikit-learn)

NETWORKS = Path(qat_networks.__file__)
IMAGE = TensorSpec("image", (1, 1, 8, 8))
Grid = tuple[float, int]


def compiled(source: Source) -> tuple[onnx.ModelProto, Compiled]:
    hub = prepare(source.to_onnx())
    return ir.to_proto(hub), litert.compile_hub(hub)


def tensors(made: Compiled) -> dict[str, dict[str, Any]]:
    """The file's tensors of integers, by name."""
    interpreter = Interpreter(model_content=made.data)
    details = interpreter.get_tensor_details()
    return {d["name"]: d for d in details if d["dtype"] in (np.int8, np.int32) and len(d["quantization_parameters"]["scales"])}


def weights(made: Compiled) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every constant of int8, output channels first, and its scales."""
    interpreter = Interpreter(model_content=made.data)
    found = []
    for detail in tensors(made).values():
        quantization = detail["quantization_parameters"]
        try:
            integers = interpreter.get_tensor(detail["index"])
        except ValueError:
            continue  # it has no memory yet: an activation
        if detail["dtype"] == np.int8:
            found.append((np.moveaxis(integers, quantization["quantized_dimension"], 0), quantization["scales"]))
    return found


def assert_has_weights(made: Compiled, integers: np.ndarray, scales: np.ndarray) -> None:
    """One of the constants holds these integers (output channels first) at exactly these scales.

    A second -128 of a channel is -127 in the file, which its notes say.
    """

    def channels(array: np.ndarray) -> list[list[int]]:
        return [sorted(np.maximum(row, -127).ravel().tolist()) for row in array]

    same = [scale for held, scale in weights(made) if channels(held) == channels(integers)]
    assert any(np.array_equal(np.broadcast_to(scale, scales.shape), scales) for scale in same), (integers.shape, scales)


def activation_grids(made: Compiled) -> set[Grid]:
    constant = {d["name"] for d in tensors(made).values() if "weights" in d["name"] or d["dtype"] == np.int32}
    found = {name: d["quantization"] for name, d in tensors(made).items() if name not in constant}
    return {(float(np.float32(scale)), int(zero)) for scale, zero in found.values()}


def steps_apart(source: onnx.ModelProto, made: Compiled, feeds: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Layer by layer, how many steps LiteRT's integers are from what ONNX says of LiteRT's own integers before.

    Each QuantizeLinear's reader is given what LiteRT has of that name, so that no difference adds up.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keeping all tensors is for debugging, it says
        interpreter = Interpreter(model_content=made.data, num_threads=1, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    runner(**{b.artifact: b.to_artifact(feeds[b.source]) for b in made.inputs})
    held = {name: interpreter.get_tensor(d["index"]) for name, d in tensors(made).items() if "weights" not in name}
    model = onnx.ModelProto()
    model.CopyFrom(source)
    shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    given, made_of = dict(feeds), {}
    for node in [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.output[0] in held]:
        name = node.output[0]
        zero = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[2])
        integers = held[name].astype(np.int16) + (128 if zero.dtype == np.uint8 else 0)
        if integers.shape != shapes[name]:
            integers = np.moveaxis(integers, -1, 1)  # no height is the number of channels here
        kind = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        model.graph.input.append(onnx.helper.make_tensor_value_info(f"{name}/given", kind, list(integers.shape)))
        given[f"{name}/given"] = made_of[name] = integers.astype(zero.dtype)
        for reader in model.graph.node:
            reader.input[:] = [f"{name}/given" if operand == name else operand for operand in reader.input]
    assert len(made_of) >= 8
    expected = source_results(model, given)
    for name, integers in made_of.items():
        yield np.abs(expected[name].astype(np.int16) - integers)


def assert_as_trained(source: Source, accuracy: float = 0.8) -> Compiled:
    """All integers; each layer within one step, next to all equal; the source's answers and its accuracy."""
    graph, made = compiled(source)
    assert {code for code, dtype in computing(made.data) if dtype == "float32"} == set()
    pictures, classes = (array[qat_networks.TRAINING :] for array in qat_networks.digits())
    name, output = source.inputs[0].name, source.outputs[0].name
    feeds = [{name: picture.reshape([int(d) for d in source.inputs[0].shape])} for picture in pictures]
    apart = [np.concatenate([layer.ravel() for layer in steps_apart(graph, made, feed)]) for feed in feeds[:20]]
    assert max(layer.max() for layer in apart) <= 1
    # A bias is rounded to an int32, which moves a sum that lies between two steps to the other one now and then.
    assert np.mean([(layer == 0).mean() for layer in apart]) >= 0.998
    answers = np.array([[run[output].argmax() for run in (source.run(f), artifact_results(made, f))] for f in feeds])
    assert (answers[:, 0] == answers[:, 1]).mean() >= 0.98
    assert (answers[:, 1] == classes).mean() >= accuracy
    return made


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_pytorch_converted_module(mode: str) -> None:
    made = assert_as_trained(open_source(f"{NETWORKS}:{mode}", inputs=[IMAGE]))
    module = getattr(qat_networks, mode)()
    layers = [layer for layer in module.modules() if callable(getattr(layer, "weight", None)) and hasattr(layer, "scale")]
    assert len(layers) == 5
    for layer in layers:
        trained = layer.weight()
        assert_has_weights(made, trained.int_repr().numpy(), trained.q_per_channel_scales().float().numpy())
    assert {(float(layer.scale), int(layer.zero_point) - 128) for layer in layers} <= activation_grids(made)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of torchao's flow: most of its time goes into that flow's patterns."""
    pytest.importorskip("torchao", reason="torchao, PyTorch's library of quantization, is not installed")
    path = tmp_path_factory.mktemp("pt2e") / "digits.pt2"
    qat_networks.export_program(path)
    return path


def test_pytorch_exported_program(exported: Path) -> None:
    made = assert_as_trained(open_source(str(exported)))
    program = torch.export.load(exported)
    constants = {**program.state_dict, **program.constants}
    named = {s.arg.name: constants[s.target] for s in program.graph_signature.input_specs if s.target in constants}
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    per_channel = [node for node in calls if "dequantize_per_channel" in str(node.target)]
    assert len(per_channel) == 5
    for node in per_channel:
        integers, scales = (named[argument.name].numpy() for argument in node.args[:2])
        assert_has_weights(made, integers, scales.astype(np.float32))
    grids = {(float(np.float32(node.args[1])), node.args[2]) for node in calls if "quantize_per_tensor" in str(node.target)}
    assert activation_grids(made) <= grids
    assert len(activation_grids(made)) >= 7


def assert_keras_as_trained(source: Source, kernels: list[np.ndarray]) -> None:
    """As trained, with these integers; a normalization that multiplies by a negative number has changed the sign of some."""
    made = assert_as_trained(source)
    found = [sorted(np.abs(held.ravel()).tolist()) for held, _ in weights(made)]
    assert len(kernels) == 5
    for kernel in kernels:
        assert sorted(np.abs(kernel).ravel().tolist()) in found


@pytest.mark.parametrize("form", ["factory", "saved_model"])
def test_keras(form: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from tests.sources import qat_keras

    model = qat_keras.network()
    spec = f"{qat_keras.__file__}:network"
    if form == "saved_model":
        spec = str(tmp_path / "digits")
        model.export(spec, verbose=False)
    layers = (qat_keras.RoundedConv2D, qat_keras.RoundedDepthwiseConv2D, qat_keras.RoundedDense)
    kernels = [np.asarray(layer.get_weights()[0]) for layer in model.layers if isinstance(layer, layers)]
    highest = [np.abs(kernel).max(tuple(range(kernel.ndim - 1))) for kernel in kernels]
    kernels = [np.rint(kernel / high * 127) for kernel, high in zip(kernels, highest, strict=True)]
    assert_keras_as_trained(open_source(spec), kernels)


def test_tensorflow_model_optimization(tmp_path: Path) -> None:
    """In a process of its own, because it wants TensorFlow's Keras to be the one of old."""
    pytest.importorskip("tensorflow_model_optimization", reason="tensorflow-model-optimization is not installed")
    pytest.importorskip("tf_keras", reason="tf-keras, which tensorflow-model-optimization trains, is not installed")
    script = Path(__file__).with_name("qat_tfmot.py")
    folder, kernels = tmp_path / "digits", tmp_path / "kernels.npz"
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    subprocess.run([sys.executable, script, folder, kernels], check=True, env=environment, capture_output=True)
    with np.load(kernels) as stored:
        assert_keras_as_trained(open_source(str(folder)), [stored[name] for name in stored.files])


def test_int8_of_a_program_needs_no_calibration(exported: Path, tmp_path: Path) -> None:
    assert_exported_without_calibration(exported, qat_networks.digits()[0][qat_networks.TRAINING :], tmp_path)


def test_int8_of_a_saved_model_needs_no_calibration(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from tests.sources import qat_keras

    source = tmp_path / "digits"
    qat_keras.network().export(str(source), verbose=False)
    pictures = qat_networks.digits()[0][qat_networks.TRAINING :]
    assert_exported_without_calibration(source, np.moveaxis(pictures, 1, -1), tmp_path)


def assert_exported_without_calibration(source: Path, pictures: np.ndarray, folder: Path) -> None:
    np.savez(folder / "test.npz", image=pictures[:50])
    package = export(source, output=folder / "package", data=str(folder / "test.npz"), precisions=["int8"])
    assert package.verdict == "pass"
    assert {artifact.precision for artifact in package.artifacts} == {"int8"}
    assert all(KEPT in artifact.notes for artifact in package.artifacts)


def test_what_is_not_quantized_needs_calibration(tmp_path: Path) -> None:
    path = tmp_path / "digits.pt2"
    torch.export.save(torch.export.export(qat_networks.trained().eval(), (torch.ones(1, 1, 8, 8),)), path)
    assert not is_quantized_file(str(path))
    assert not is_quantized_file(str(tmp_path / "none.pt2"))
    with pytest.raises(QuantizeError, match="needs calibration data"):
        export(path, output=tmp_path / "package", precisions=["int8"])
