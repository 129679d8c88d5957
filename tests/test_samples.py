"""The samples of the README: real scans, trained classifiers, and packages that pass their gates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


@pytest.mark.parametrize(
    ("source", "data", "options"),
    [
        ("digits.keras", "digits", ()),
        ("digits_torch.py:digits", "digits_nchw", ("--input", "image=1x1x8x8")),
        ("digits.onnx", "digits_nchw", ()),
    ],
    ids=["keras", "torch", "onnx"],
)
def test_sample_exports_for_android_and_passes_on_held_out_scans(source, data, options, tmp_path):
    if not source.endswith(".onnx"):
        pytest.importorskip("tensorflow" if source.endswith(".keras") else "torch", reason="its extra is not installed")
    package = tmp_path / "digits-android"
    command = [sys.executable, "-m", "edgekit", "export", str(SAMPLES / source), *options]
    command += ["--target", "android", "--precision", "fp32,fp16,int8", "--output", str(package), "--json"]
    command += ["--calibration", str(SAMPLES / f"{data}_calibration.npz"), "--data", str(SAMPLES / f"{data}_test.npz")]
    done = subprocess.run([*command, "--labels", str(SAMPLES / "digits_labels.npy")], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    manifest = json.loads((package / "edgekit.json").read_text())
    assert manifest["verification"]["verdict"] == "pass"
    assert (
        manifest["verification"]["evidence"] | {"real": True, "labeled": True, "samples": 600}
        == (manifest["verification"]["evidence"])
    )
    verified = {artifact["file"]: artifact["outputs"][0] for artifact in manifest["verification"]["artifacts"]}
    assert {
        "model_fp32.tflite",
        "model_fp16.tflite",
        "model_int8.tflite",
        "model_fp32.onnx",
        "model_int8.onnx",
    } <= verified.keys()
    for file, output in verified.items():
        assert output["accuracy"] >= 0.97, file
        assert output["accuracy"] >= output["source_accuracy"] - 0.01, file


@pytest.mark.parametrize("file", ["model_fp32.tflite", "model_int8.tflite"])
def test_sample_needs_no_transpose_and_no_separate_activation(file, tmp_path):
    import edgekit

    package = edgekit.export(
        SAMPLES / "digits.onnx",
        target="android",
        precisions=["fp32", "int8"],
        calibration=str(SAMPLES / "digits_nchw_calibration.npz"),
        output=tmp_path / "package",
    )
    operators = next(artifact for artifact in package.artifacts if artifact.file == file).operators
    assert "TRANSPOSE" not in operators
    assert "RELU6" not in operators
    assert operators["CONV_2D"] == 3
    assert operators["DEPTHWISE_CONV_2D"] == 2


def test_data_are_real_scans_and_the_test_set_was_held_out():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn has the scans; the dev extra installs it")
    scans = {(scan / 16).astype(np.float32).tobytes(): label for scan, label in zip(*datasets.load_digits(return_X_y=True))}  # noqa: B905
    test = np.load(SAMPLES / "digits_test.npz")["image"]
    calibration = np.load(SAMPLES / "digits_calibration.npz")["image"]
    labels = np.load(SAMPLES / "digits_labels.npy")

    assert test.shape == (600, 8, 8, 1)
    assert [scans[image.tobytes()] for image in test] == labels.tolist()
    assert all(image.tobytes() in scans for image in calibration)
    assert not {image.tobytes() for image in test} & {image.tobytes() for image in calibration}


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_both_layouts_hold_the_same_scans(part):
    channels_last = np.load(SAMPLES / f"digits_{part}.npz")["image"]
    channels_first = np.load(SAMPLES / f"digits_nchw_{part}.npz")["image"]

    np.testing.assert_array_equal(channels_first, channels_last.transpose(0, 3, 1, 2))
