"""`--precision auto`: from the command line to a package within its budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import edgekit
from edgekit.errors import InputError, QuantizeError
from edgekit.inspect import inspect
from edgekit.package import Package
from edgekit.quantize import load_recipe

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, str, str]:
    """A model with one branch that int8 ruins (channels of sizes from 1e-3 to 1e3 between two convolutions) and one that it does
    not, calibration data and others."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv(x, first)
            squashed = Tanh(a)
            wide = Conv(squashed, scale)
            bad = Conv(wide, back)
            tame = Conv<pads=[1,1,1,1]>(x, w)
            soft = Relu(tame)
            y = Add(bad, soft)
        }""")
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(4, 4)) * np.array([1e-3, 1, 1, 1e3]).reshape(4, 1)
    constants = {
        "first": rng.normal(size=(4, 4, 1, 1)),
        "scale": mixing.reshape(4, 4, 1, 1),
        "back": np.linalg.inv(mixing).reshape(4, 4, 1, 1),
        "w": rng.normal(size=(4, 4, 3, 3)) / 10,
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(c.astype(np.float32), name) for name, c in constants.items())
    path = tmp_path / "branches.onnx"
    onnx.save(model, path)
    for name in ("calibration", "test"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(80, 4, 8, 8)).astype(np.float32))
    return path, str(tmp_path / "calibration.npy"), str(tmp_path / "test.npy")


def run_cli(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "edgekit", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def auto(network: tuple[Path, str, str], folder: Path, **options: Any) -> Package:
    source, calibration, _ = network
    fixed = {"precisions": ["auto"], "formats": ["tflite"], "calibration": calibration}
    return edgekit.export(source, "raspberry-pi", output=folder / "p", **{**fixed, **options})


def test_what_int8_ruins_stays_in_float(network: tuple[Path, str, str], tmp_path: Path) -> None:
    source, calibration, data = network
    out = tmp_path / "package"
    options = ["-t", "raspberry-pi", "-c", calibration, "--data", data, "-p", "int8,auto", "--max-drop", "0.2", "-o", str(out)]
    code, printed = run_cli("export", str(source), *options, "--json")
    assert code in (0, 2), printed
    package = edgekit.load_package(out)
    verdicts = {verdict.file: verdict for verdict in package.verification.artifacts}
    for file in ("model_auto.tflite", "model_auto.onnx"):
        assert verdicts[file].verdict == "pass"
        assert verdicts[file].outputs[0].sqnr_db > 26.9, "0.2 % of the signal"
        assert verdicts[file.replace("auto", "int8")].outputs[0].sqnr_db < 20
    assert package.quantization is not None
    search = package.quantization["search"]
    assert search["met"]
    assert search["measure"] == "noise"
    assert "wide" in search["in_float"]
    assert "soft" not in search["in_float"]
    recipe = load_recipe(out / "recipe.toml")
    assert sorted(recipe.layers) == search["in_float"]
    operators = inspect(out / "model_auto.tflite").operators
    assert operators["QUANTIZE"] >= 1, "the other branch is int8"

    again = tmp_path / "again"
    code, _ = run_cli(
        "export", str(source), "-t", "raspberry-pi", "-c", calibration, "--data", data, "-p", "int8",
        "--recipe", str(out / "recipe.toml"), "-o", str(again),
    )  # fmt: skip
    assert (again / "model_int8.tflite").read_bytes() == (out / "model_auto.tflite").read_bytes()
    assert (again / "model_int8.onnx").read_bytes() == (out / "model_auto.onnx").read_bytes()


def test_without_other_data_a_part_of_the_calibration_data_judges(network: tuple[Path, str, str], tmp_path: Path) -> None:
    package = auto(network, tmp_path, max_drop=50)
    assert package.verification.evidence.samples == 20
    assert package.notes[-1].startswith("auto: ")


def test_a_budget_that_is_out_of_reach_fails_with_the_best_attempt(network: tuple[Path, str, str], tmp_path: Path) -> None:
    package = auto(network, tmp_path, data=network[2], max_drop=0.0, search_minutes=0)
    assert package.verdict == "fail"
    assert "NOT within" in package.notes[-1]
    assert json.loads((package.path / "edgekit.json").read_text())["quantization"]["search"]["stopped"] == "after 0 minutes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ["auto"]}, "needs a budget"),
        ({"precisions": ["int8"], "max_drop": 0.5}, "for the precision auto"),
        ({"precisions": ["auto"], "max_drop": 101}, "budget"),
        ({"precisions": ["auto"], "max_drop": 0.5, "calibration": None}, "calibration data"),
        ({"precisions": ["auto"], "max_drop": 0.5, "calibration": "few"}, "too few"),
        ({"precisions": ["int8"], "recipe": "none.toml"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_together_is_said_and_nothing_is_written(
    network: tuple[Path, str, str], tmp_path: Path, options: dict, message: str
) -> None:
    source, calibration, _ = network
    np.save(tmp_path / "few.npy", np.load(calibration)[:20])
    given = {"calibration": calibration} | options
    if given["calibration"] == "few":
        given["calibration"] = str(tmp_path / "few.npy")
    with pytest.raises((InputError, QuantizeError), match=message):
        edgekit.export(source, "raspberry-pi", output=tmp_path / "p", **given)
    assert not (tmp_path / "p").exists()
