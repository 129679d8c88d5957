"""Keras sources: `.keras`, legacy `.h5`, SavedModel folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx_ir
import pytest

from edgekit.contract import TensorSpec
from edgekit.errors import InputError, SourceError, UntrustedSource
from edgekit.sources import Source, open_source
from edgekit.sources.keras_model import keras_source
from tests.sources.parity import operators, worst_error

os.environ["KERAS_BACKEND"] = "tensorflow"
keras = pytest.importorskip("keras")
layers = keras.layers


def saved(model: Any, path: Path) -> Source:
    model.save(path)
    return open_source(str(path))


def stack(*stages: Any, shape: tuple[int | None, ...] = (4, 6), dtype: str = "float32") -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential([layers.Input(shape, name="x", dtype=dtype), *stages], name="net")


@pytest.fixture(scope="module")
def two_headed() -> Any:
    """A model with one image input and two named outputs."""
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3), name="image")
    features = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", activation="relu")(image))
    scores = layers.Dense(3)(layers.GlobalAveragePooling2D()(features))
    return keras.Model(image, {"scores": scores, "features": features}, name="net")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_files(two_headed: Any, tmp_path: Path, suffix: str) -> None:
    source = saved(two_headed, tmp_path / f"net{suffix}")
    assert source.inputs == (TensorSpec("image", (1, 16, 16, 3)),)
    assert {spec.name: spec.shape for spec in source.outputs} == {"scores": (1, 3), "features": (1, 16, 16, 4)}
    assert worst_error(source) <= 1e-5


@pytest.mark.parametrize("dynamic", [(), ("batch",)])
def test_saved_model_folders(two_headed: Any, tmp_path: Path, dynamic: tuple[str, ...]) -> None:
    two_headed.export(tmp_path / "net", verbose=False)
    source = open_source(str(tmp_path / "net"), dynamic=dynamic)
    assert source.inputs == (TensorSpec("image", ("batch" if dynamic else 1, 16, 16, 3)),)
    assert [spec.name for spec in source.outputs] == ["features", "scores"]
    assert worst_error(source) <= 1e-5
    before = source.sha256
    shutil.copytree(tmp_path / "net", tmp_path / "copy")
    assert open_source(str(tmp_path / "copy")).sha256 == before


def test_the_batch_can_be_kept_or_chosen(two_headed: Any, tmp_path: Path) -> None:
    two_headed.save(tmp_path / "net.keras")
    kept = open_source(str(tmp_path / "net.keras"), dynamic=["batch"])
    assert kept.outputs[0].shape[0] == "batch"
    assert worst_error(kept) <= 1e-5
    chosen = open_source(str(tmp_path / "net.keras"), inputs=[TensorSpec("image", (4, 16, 16, 3))])
    assert chosen.outputs[0].shape[0] == 4


def test_a_saved_model_that_writes_files_is_refused(tmp_path: Path) -> None:
    import tensorflow

    class Logger(tensorflow.Module):
        @tensorflow.function(input_signature=[tensorflow.TensorSpec([1], tensorflow.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            tensorflow.io.write_file(str(tmp_path / "log"), "called")
            return x * 2

    logger = Logger()
    tensorflow.saved_model.save(logger, str(tmp_path / "net"), signatures=logger.__call__)
    with pytest.raises(UntrustedSource, match="WriteFile operator"):
        open_source(str(tmp_path / "net"))
    assert not (tmp_path / "log").exists()


def test_other_open_dimensions_must_be_given(tmp_path: Path) -> None:
    model = stack(layers.Conv2D(2, 3), layers.GlobalMaxPooling2D(), shape=(None, None, 1))
    model.save(tmp_path / "net.keras")
    with pytest.raises(InputError, match="dimension 1 of the input 'x' is open"):
        open_source(str(tmp_path / "net.keras"))
    assert worst_error(open_source(str(tmp_path / "net.keras"), inputs=[TensorSpec("x", (1, 9, 7, 1))])) <= 1e-5


def test_the_same_file_gives_the_same_graph(two_headed: Any, tmp_path: Path) -> None:
    two_headed.save(tmp_path / "net.keras")
    graphs = {onnx_ir.to_proto(open_source(str(tmp_path / "net.keras")).to_onnx()).SerializeToString() for _ in range(2)}
    assert len(graphs) == 1


def test_another_process_gives_the_same_graph() -> None:
    """tf2onnx goes through sets of names, whose order is another one in each process."""
    program = """
import hashlib, sys
import onnx_ir
from edgekit.sources import open_source
proto = onnx_ir.to_proto(open_source(sys.argv[1]).to_onnx())
print(hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest())
"""
    sample = Path(__file__).resolve().parents[2] / "samples" / "digits.keras"
    digests = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program, str(sample)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        digests.add(done.stdout.split()[-1])
    assert len(digests) == 1


LARGE: dict[str, Callable[[], Any]] = {
    "convolutions": lambda: stack(
        layers.Conv2D(64, 3), layers.SeparableConv2D(128, 3), layers.Conv2DTranspose(32, 3), layers.Flatten(), layers.Dense(64),
        shape=(8, 8, 64),
    ),
    "grouped": lambda: stack(layers.Conv2D(256, 3, groups=2), shape=(4, 4, 256)),
    "recurrent": lambda: stack(layers.LSTM(128, return_sequences=True), layers.GRU(64), shape=(4, 128)),
    "tokens": lambda: stack(layers.Embedding(300, 128), layers.Dense(256), layers.Dense(4), shape=(6,), dtype="int32"),
    "attention": lambda: _attention(),
    "one layer twice": lambda: _twice(),
}  # fmt: skip


def _attention() -> Any:
    x = keras.Input((5, 128), name="x")
    return keras.Model(x, layers.MultiHeadAttention(4, 64)(x, x))


def _twice() -> Any:
    """Its weights multiply, and are added."""

    class Tied(layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, self.kernel) + keras.ops.sum(self.kernel, axis=0)

    x = keras.Input((160,), name="x")
    tied, dense = Tied(), layers.Dense(160)
    return keras.Model(x, dense(tied(dense(x))))


@pytest.mark.parametrize("name", LARGE)
def test_large_weights(name: str) -> None:
    source = keras_source(LARGE[name](), "net", "")
    assert worst_error(source) <= 1e-5
    assert [value.name for value in source.to_onnx().graph.inputs] == [spec.name for spec in source.inputs]


def test_large_weights_of_a_saved_model(tmp_path: Path) -> None:
    stack(layers.Conv2D(128, 3), layers.Flatten(), layers.Dense(64), shape=(6, 6, 64)).export(tmp_path / "net", verbose=False)
    source = open_source(str(tmp_path / "net"))
    assert worst_error(source) <= 1e-5
    assert len(source.to_onnx().graph.inputs) == 1


def test_conversion_takes_little_more_memory_than_the_weights() -> None:
    """TensorFlow and tf2onnx would copy these 64 MB a dozen times."""
    program = """
import resource
import keras
from edgekit.sources.keras_model import keras_source
x = keras.Input((4096,), name="x")
source = keras_source(keras.Model(x, keras.layers.Dense(4096)(x)), "net", "")
small = keras.Input((8,), name="x")
keras_source(keras.Model(small, keras.layers.Dense(4)(small)), "net", "").to_onnx()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = source.to_onnx()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (4096 * 4096 * 4 / 1024))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 3


# What each recurrent layer becomes; without an ONNX operator for it, its steps one after the other.
RECURRENT: dict[str, tuple[Callable[[], list[Any]], set[str]]] = {
    "lstm": (lambda: [layers.LSTM(5, bias_initializer="random_normal")], {"LSTM"}),
    "lstm, every step": (lambda: [layers.LSTM(5, return_sequences=True), layers.Dense(3)], {"LSTM"}),
    "lstm, backwards": (lambda: [layers.LSTM(5, return_sequences=True, go_backwards=True)], {"LSTM"}),
    "lstm, relu": (lambda: [layers.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid")], {"LSTM"}),
    "gru": (lambda: [layers.GRU(5, bias_initializer="random_normal")], {"GRU"}),
    "gru, reset before": (lambda: [layers.GRU(5, reset_after=False, bias_initializer="random_normal")], {"GRU"}),
    "gru, no bias": (lambda: [layers.GRU(5, use_bias=False)], {"GRU"}),
    "both ways": (lambda: [layers.Bidirectional(layers.LSTM(5, return_sequences=True)), layers.GRU(4)], {"LSTM", "GRU"}),
    "both ways, sum": (lambda: [layers.Bidirectional(layers.GRU(5), merge_mode="sum")], {"GRU"}),
    "simple": (lambda: [layers.SimpleRNN(5)], {"MatMul", "Tanh"}),
    "lstm, gelu": (lambda: [layers.LSTM(5, activation="gelu")], {"Erf", "Sigmoid"}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(tmp_path: Path, name: str) -> None:
    stages, expected = RECURRENT[name]
    source = saved(stack(*stages()), tmp_path / "net.keras")
    found = operators(source)
    assert expected <= found
    assert not {"Loop", "If", "Scan", "ReverseSequence"} & found - ({"ReverseSequence"} if name == "lstm, backwards" else set())
    assert worst_error(source) <= 1e-5


def test_a_mask_unrolls_the_layer(tmp_path: Path) -> None:
    text = stack(layers.Embedding(20, 8, mask_zero=True), layers.LSTM(6), layers.Dense(2), shape=(7,), dtype="int32")
    source = saved(text, tmp_path / "net.keras")
    assert not {"Loop", "LSTM"} & operators(source)
    assert worst_error(source, {"x": np.array([[3, 0, 5, 1, 0, 0, 0]], np.int32)}) <= 1e-5  # a hole, and padding


def test_converting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    source = saved(
        stack(layers.Bidirectional(layers.LSTM(5)), layers.Reshape((5, 2)), layers.SimpleRNN(2)), tmp_path / "net.keras"
    )
    feeds = {"x": np.ones((1, 4, 6), np.float32)}
    before = source.run(feeds)
    source.to_onnx()
    after = source.run(feeds)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_a_stateful_layer_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input(batch_shape=(1, 4, 6)), layers.GRU(5, stateful=True, name="memory")])
    with pytest.raises(SourceError, match="'memory' keeps its state"):
        saved(model, tmp_path / "net.keras").to_onnx()


# Layers that tf2onnx or TensorFlow's freezing have trouble with, and how large their input is.
AWKWARD: dict[str, tuple[Callable[[], list[Any]], tuple[int, ...]]] = {
    "transposed": (lambda: [layers.Conv2DTranspose(4, 3, strides=2, padding="same"), layers.SeparableConv2D(5, 3)], (8, 8, 3)),
    "grouped": (lambda: [layers.Conv2D(8, 3, groups=4, padding="same"), layers.DepthwiseConv2D(3)], (8, 8, 4)),
    "gelu": (lambda: [layers.Dense(4, activation="gelu")], (5,)),
    "captured constants": (lambda: [layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])], (4, 4, 3)),
    "resizing": (lambda: [layers.UpSampling2D(interpolation="bilinear"), layers.AveragePooling2D(3, padding="same")], (5, 5, 2)),
    "norms": (lambda: [layers.LayerNormalization(), layers.GroupNormalization(2)], (4, 4, 6)),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_layers(tmp_path: Path, name: str) -> None:
    stages, shape = AWKWARD[name]
    assert worst_error(saved(stack(*stages(), shape=shape), tmp_path / "net.keras")) <= 1e-5


def test_a_mixed_precision_model_is_run_in_float32(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((6,), name="x"), layers.Dense(4, dtype="mixed_float16")])
    source = saved(model, tmp_path / "net.keras")
    assert [spec.dtype for spec in (*source.inputs, *source.outputs)] == ["float32", "float32"]
    assert worst_error(source) <= 1e-5


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_opens_only_when_trusted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    stack(layers.Lambda(lambda x: x * 2 + 1, name="scale", output_shape=(4, 6))).save(path)
    with pytest.raises(UntrustedSource, match="Lambda layer") as error:
        open_source(str(path))
    assert "layer scale" in str(error.value)
    assert worst_error(open_source(str(path), trust=True)) <= 1e-5


def test_a_class_outside_of_keras_is_refused(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="shop")
    class Discount(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 0.9

    stack(Discount()).save(tmp_path / "net.keras")
    with pytest.raises(UntrustedSource, match="Discount, which is not part of Keras"):
        open_source(str(tmp_path / "net.keras"))


def rewrite_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an HDF5 model's architecture, as another version of Keras would have written it."""
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def keras_2(node: Any) -> None:
    """Arguments and class names that Keras 2 wrote and Keras 3 does not read."""
    if isinstance(node, list):
        for child in node:
            keras_2(child)
    if isinstance(node, dict):
        arguments = node.get("config")
        if node.get("class_name") in ("LSTM", "GRU"):
            arguments |= {"time_major": False, "implementation": 2}
        if node.get("class_name") == "DepthwiseConv2D":
            arguments |= {"groups": 1}
        if node.get("class_name") == "GlorotUniform":
            arguments |= {"dtype": "float32"}
        if node.get("class_name") == "Functional":
            node["class_name"] = "Model"
        for child in node.values():
            keras_2(child)


def test_an_h5_file_of_keras_2(tmp_path: Path) -> None:
    inner_input = keras.Input((8, 8, 3))
    inner = keras.Model(inner_input, layers.DepthwiseConv2D(3, padding="same")(inner_input), name="inner")
    outer_input = keras.Input((8, 8, 3), name="image")
    outer = keras.Model(outer_input, layers.LSTM(4)(layers.Reshape((8, 24))(inner(outer_input))), name="outer")
    outer.save(tmp_path / "net.h5")
    expected = open_source(str(tmp_path / "net.h5"))
    rewrite_config(tmp_path / "net.h5", keras_2)
    with pytest.raises((TypeError, ValueError)):
        keras.saving.load_model(tmp_path / "net.h5", compile=False)
    source = open_source(str(tmp_path / "net.h5"))
    feeds = {"image": np.random.default_rng(0).random((1, 8, 8, 3), np.float32)}
    np.testing.assert_array_equal(*(next(iter(s.run(feeds).values())) for s in (source, expected)))
    assert worst_error(source, feeds) <= 1e-5


def test_an_argument_that_means_something_is_not_dropped(tmp_path: Path) -> None:
    def time_major(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["time_major"] = True

    stack(layers.LSTM(5)).save(tmp_path / "net.h5")
    rewrite_config(tmp_path / "net.h5", time_major)
    with pytest.raises(SourceError, match="time_major=True, which Keras 3 does not have"):
        open_source(str(tmp_path / "net.h5"))


def test_weights_alone_are_refused(tmp_path: Path) -> None:
    stack(layers.Dense(2)).save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(SourceError, match="weights without an architecture"):
        open_source(str(tmp_path / "net.weights.h5"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_truncated_file(tmp_path: Path, suffix: str) -> None:
    stack(layers.Dense(2)).save(tmp_path / f"whole{suffix}")
    (tmp_path / f"cut{suffix}").write_bytes((tmp_path / f"whole{suffix}").read_bytes()[:-700])
    with pytest.raises(SourceError):
        open_source(str(tmp_path / f"cut{suffix}"))


def test_an_archive_that_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(SourceError, match="holds no Keras model"):
        open_source(str(tmp_path / "photos.keras"))


def test_a_folder_that_is_no_saved_model(two_headed: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no SavedModel"):
        open_source(str(tmp_path))
    two_headed.export(tmp_path / "net", verbose=False)
    shutil.rmtree(tmp_path / "net" / "variables")
    with pytest.raises(SourceError, match="cannot read the SavedModel"):
        open_source(str(tmp_path / "net"))
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(SourceError, match="cannot read the SavedModel"):
        open_source(str(tmp_path / "net"))
