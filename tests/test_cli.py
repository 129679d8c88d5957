"""The commands as a user runs them: output, exit codes, and what they leave behind."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

SAMPLES = Path(__file__).parent.parent / "samples"
DIGITS = SAMPLES / "digits.onnx"
DATA = ["--data", str(SAMPLES / "digits_nchw_test.npz"), "--samples", "20"]
QUICK = ["--target", "linux", "--format", "onnx", "--precision", "fp32"]


def edgekit(*arguments, cwd, before=""):
    """Run the command; `before` is Python that runs first, to take something away."""
    code = f"{before}\nfrom edgekit.cli import main\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def assert_error(result, *says):
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("edgekit: ")
    assert "Traceback" not in result.stderr
    for text in says:
        assert text in result.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    result = edgekit("export", DIGITS, *QUICK, *DATA, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "digits-linux", result


def test_export_ends_with_a_table_and_the_verdict(package):
    folder, result = package
    row = next(line for line in result.stdout.splitlines() if line.startswith("model_fp32.onnx"))
    assert row.endswith("pass")
    assert "20 real samples: digits_nchw_test.npz" in result.stdout
    assert result.stdout.splitlines()[-1] == "pass: digits-linux"
    assert (folder / "edgekit.json").is_file()


def test_export_is_silent_on_stderr_in_a_pipe(package):
    assert package[1].stderr == ""


def test_export_json_is_one_document(tmp_path):
    result = edgekit("export", DIGITS, *QUICK, *DATA, "--json", cwd=tmp_path)
    document = json.loads(result.stdout)
    assert (document["package"], document["verdict"]) == ("digits-linux", "pass")
    assert document["manifest"] == json.loads((tmp_path / "digits-linux" / "edgekit.json").read_text())


def test_lists_are_given_by_commas_or_repeated(tmp_path):
    options = ["--target", "linux", "--format", "onnx,ort", "--precision", "float32", "--precision", "half", *DATA]
    assert edgekit("export", DIGITS, *options, "-o", "p", cwd=tmp_path).returncode == 0
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert {"model_fp32.onnx", "model_fp32.ort", "model_fp16.onnx"} <= names


def test_a_failed_gate_is_exit_code_2_and_the_package_is_there(tmp_path):
    result = edgekit("export", DIGITS, *QUICK, *DATA, "--gate", "fp32.sqnr_db>=500", cwd=tmp_path)
    assert result.returncode == 2
    assert "sqnr_db is" in result.stdout
    assert result.stdout.splitlines()[-1] == "fail: digits-linux"
    assert edgekit("verify", "digits-linux", cwd=tmp_path).returncode == 2


def test_random_inputs_are_said_loudly(tmp_path):
    result = edgekit("export", DIGITS, *QUICK, cwd=tmp_path)
    assert result.returncode == 0
    assert "unverified (random inputs)" in result.stdout
    assert "RANDOM" in result.stdout
    assert result.stdout.splitlines()[-1] == "unverified: digits-linux"


def test_verify_from_the_golden_vectors(package):
    result = edgekit("verify", package[0], cwd="/")
    assert result.returncode == 0
    assert "8 real samples: golden.npz" in result.stdout


def test_verify_json(package):
    document = json.loads(edgekit("verify", package[0], "--json", cwd="/").stdout)
    assert (document["verdict"], document["verification"]["evidence"]["kind"]) == ("pass", "golden")


def test_verify_finds_tampering(tmp_path, package):
    import shutil

    shutil.copytree(package[0], tmp_path / "p")
    with open(tmp_path / "p" / "model_fp32.onnx", "r+b") as file:
        file.seek(5000)
        file.write(b"\x42")
    assert_error(edgekit("verify", "p", cwd=tmp_path), "model_fp32.onnx", "sha256 differs")


def test_inspect_a_model_and_a_package(package):
    text = edgekit("inspect", DIGITS, cwd="/").stdout
    assert "image  1x1x8x8:float32" in text
    assert json.loads(edgekit("inspect", DIGITS, "--json", cwd="/").stdout)["operators"]["Conv"] == 5
    assert "model_fp32.onnx" in edgekit("inspect", package[0], cwd="/").stdout
    assert json.loads(edgekit("inspect", package[0], "--json", cwd="/").stdout)["verdict"] == "pass"


def test_inspect_says_what_a_target_has_against_a_model(tmp_path):
    text = edgekit("inspect", DIGITS, "--target", "android", cwd="/").stdout
    assert "android has nothing against it" in text
    assert "android does not take tflite in int16x8: neither the GPU delegate" in text
    document = json.loads(edgekit("inspect", SAMPLES / "digits.keras", "--target", "android", "--json", cwd="/").stdout)
    assert document["problems"] == ["android takes tflite, onnx, ort, digits.keras is keras: export it"]


def test_targets_and_doctor():
    assert "raspberry-pi" in edgekit("targets", cwd="/").stdout
    assert {t["name"] for t in json.loads(edgekit("targets", "--json", cwd="/").stdout)["targets"]} >= {"android", "linux"}
    assert json.loads(edgekit("targets", "android", cwd="/").stdout)["threads"] == 4
    assert json.loads(edgekit("doctor", "--json", cwd="/").stdout)["healthy"]
    assert "onnxruntime" in edgekit("doctor", cwd="/").stdout


def test_python_m_edgekit():
    result = subprocess.run([sys.executable, "-m", "edgekit", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("edgekit, version ")


@pytest.mark.parametrize("data", [b"", b"garbage" * 50, DIGITS.read_bytes()[:5000]], ids=["empty", "garbage", "truncated"])
def test_a_damaged_model(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    assert_error(edgekit("export", "m.onnx", *QUICK, cwd=tmp_path), "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_model_that_is_not_there(tmp_path):
    assert_error(edgekit("export", "m.onnx", cwd=tmp_path), "m.onnx", "to do:")


def test_data_of_a_wrong_shape(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 9, 9), np.float32))
    assert_error(edgekit("export", DIGITS, *QUICK, "--data", "x.npy", cwd=tmp_path), "x.npy", "1x1x8x8")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_an_unsupported_operator_is_named(tmp_path):
    imports = 'opset_import: ["" : 20, "com.acme" : 1]'
    text = f"<ir_version: 9, {imports}> g (float[2] x) => (float[2] y) {{ y = com.acme.Frobnicate(x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    assert_error(edgekit("export", "m.onnx", "--target", "linux", cwd=tmp_path), "Frobnicate")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("model", "module", "extra"), [(SAMPLES / "digits.keras", "tensorflow", "keras"), ("m.pt2", "torch", "torch")]
)
def test_a_missing_extra_says_how_to_install_it(tmp_path, model, module, extra):
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
    before = f"import sys; sys.modules.update({{'{module}': None, 'keras': None}})"
    assert_error(edgekit("export", model, *QUICK, cwd=tmp_path, before=before), f"edgekit[{extra}]")


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert_error(edgekit("export", DIGITS, *QUICK, "-o", "file/p", cwd=tmp_path), "cannot be written", "-o")
    assert_error(edgekit("export", DIGITS, *QUICK, "-o", "/proc/p", cwd=tmp_path), "cannot be written", "-o")


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["export"], ["export", DIGITS, "--bogus"], ["export", DIGITS, "--samples=0"], ["verify", "/nowhere"]],
)
def test_a_wrong_command_line_is_exit_code_1_because_2_is_a_failed_gate(tmp_path, arguments):
    assert_error(edgekit(*arguments, cwd=tmp_path))


def test_debug_shows_the_traceback(tmp_path):
    result = edgekit("export", "m.onnx", "--debug", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


SLOW = """
import pathlib, time
import numpy as np

def digits():
    yield np.zeros((1, 8, 8), np.float32)
    pathlib.Path("started").touch()
    time.sleep(60)
"""


def interrupted(folder, number):
    """Export on data that never end, and send a signal in the middle."""
    (folder / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "edgekit", "export", str(DIGITS), *QUICK, "-o", "p", "--data", "slow.py:digits"]
    # A shell starts what it runs in the background deaf to interrupts, and its children inherit that.
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=hears) as process:
        deadline = time.monotonic() + 60
        while not (folder / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(timeout=60), process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(tmp_path, number):
    code, text = interrupted(tmp_path, number)
    assert code == 130
    assert text.strip() == "edgekit: interrupted: nothing was written"
    assert {path.name for path in tmp_path.iterdir()} == {"slow.py", "started"}


def test_a_killed_export_leaves_no_package_and_the_next_clears_up(tmp_path):
    code, _ = interrupted(tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "p").exists()
    assert edgekit("export", DIGITS, *QUICK, *DATA, "-o", "p", cwd=tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"slow.py", "started", "p"}


def test_a_closed_pipe_is_no_traceback(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgekit", "targets", "--json"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in result.stderr
