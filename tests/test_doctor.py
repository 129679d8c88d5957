"""What is installed, judged by edgekit's own metadata."""

import sys
from importlib import metadata

from edgekit.doctor import diagnose


def test_this_installation_is_healthy():
    diagnosis = diagnose()
    core = {part.name: part for part in diagnosis.parts if part.extra is None}
    assert diagnosis.healthy
    assert {"onnx", "onnxruntime", "ai-edge-litert", "numpy"} <= set(core)
    assert core["onnx"].installed == metadata.version("onnx")
    assert core["onnx"].needs.startswith(">=")
    assert {part.extra for part in diagnosis.parts} >= {None, "keras", "torch"}


def test_a_missing_extra_is_named_with_its_command_and_is_no_illness(monkeypatch):
    installed = metadata.version

    def without_torch(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", without_torch)
    diagnosis = diagnose()
    assert diagnosis.healthy
    assert any("pip install 'edgekit[torch]' (torch)" in advice for advice in diagnosis.advice)


def test_a_core_package_that_does_not_import_is_an_illness(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_ir", None)  # what Python does for a module that must not be imported
    diagnosis = diagnose()
    assert not diagnosis.healthy
    assert next(part for part in diagnosis.parts if part.name == "onnx-ir").state.startswith("broken: ")


def test_a_version_that_is_too_old(monkeypatch):
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.2" if name == "onnxruntime" else installed(name))
    diagnosis = diagnose()
    assert not diagnosis.healthy
    assert next(part for part in diagnosis.parts if part.name == "onnxruntime").state == "too old"


def test_the_machine():
    machine = diagnose().machine
    assert machine["LiteRT delegates"][0].startswith("xnnpack")
    assert "CPUExecutionProvider" in machine["ONNX Runtime providers"]
    assert machine["cores"] >= 1
