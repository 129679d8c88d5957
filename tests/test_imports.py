"""What is imported when: a command line tool that loads TensorFlow to print its help is not used twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent.parent / "samples"
FRAMEWORKS = {"tensorflow", "keras", "torch", "jax", "tf2onnx", "transformers"}
HEAVY = FRAMEWORKS | {
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "PIL",
    "rich",
}


def modules_after(code, cwd):
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def command(*arguments):
    return f"from edgekit.cli import cli\ncli.main({[*map(str, arguments)]!r}, standalone_mode=False)"


@pytest.mark.parametrize("code", ["import edgekit", command("--help"), command("export", "--help"), command("--version")])
def test_help_imports_nothing_heavy(code, tmp_path):
    assert modules_after(code, tmp_path) & HEAVY == set()


def test_an_onnx_export_and_verify_import_neither_tensorflow_nor_torch(tmp_path):
    data = ["--calibration", str(SAMPLES / "digits_nchw_calibration.npz")]
    code = command("export", str(SAMPLES / "digits.onnx"), "--target", "linux", "--output", "out", *data)
    loaded = modules_after(code, tmp_path) | modules_after(command("verify", "out"), tmp_path)
    assert (tmp_path / "out" / "edgekit.json").is_file()
    assert "onnxruntime" in loaded
    assert loaded & FRAMEWORKS == set()


@pytest.mark.parametrize(
    "arguments", [("targets",), ("doctor",), ("inspect", SAMPLES / "digits.keras"), ("inspect", SAMPLES / "digits.onnx")]
)
def test_looking_imports_no_framework(arguments, tmp_path):
    assert modules_after(command(*arguments), tmp_path) & FRAMEWORKS == set()


def test_inspecting_ort_imports_no_framework(tmp_path):
    code = f"""from edgekit.ort.ort_format import to_ort_format
open("m.ort", "wb").write(to_ort_format(open({str(SAMPLES / "digits.onnx")!r}, "rb").read()))
{command("inspect", "m.ort")}"""
    assert modules_after(code, tmp_path) & FRAMEWORKS == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", SAMPLES / "digits.onnx", "-t", "linux", "-p", "fp32,int8", "-c", SAMPLES / "digits_nchw_calibration.npz"),
        ("inspect", SAMPLES / "digits.onnx"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_runtime_leaves_a_file_behind(arguments, tmp_path):
    """onnxruntime writes the number of a telemetry session into the folder for temporary files when it is imported."""
    folders = {name: tmp_path / name for name in ("temporary", "working")}
    for folder in folders.values():
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = [sys.executable, "-m", "edgekit", *map(str, arguments)]
    environment |= {"TMPDIR": str(folders["temporary"]), "PYTHONPATH": str(SAMPLES.parent)}
    done = subprocess.run(program, capture_output=True, text=True, cwd=folders["working"], env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folders["temporary"].iterdir()) == []


def test_the_public_names_stay_functions_whatever_is_imported():
    import edgekit
    import edgekit.export
    import edgekit.inspect
    import edgekit.verify.metrics
    from edgekit.verify import metrics

    assert metrics.Comparison
    assert all(callable(getattr(edgekit, name)) for name in ("export", "verify", "inspect", "load_package"))
    assert edgekit.export.__name__ == "export"
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = edgekit.exprot
