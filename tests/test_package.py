"""The folder: whole or not there, checked when it is read, the same bytes for the same input."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from edgekit import staging
from edgekit.contract import Artifact, Binding, TensorSpec
from edgekit.errors import PackageError
from edgekit.package import Package, PackagedArtifact, SourceRecord, drafted, load_package
from edgekit.preprocess import Preprocess
from edgekit.verify.gates import Gate, Gates
from edgekit.verify.metrics import Comparison
from edgekit.verify.verdict import Evidence, Verification, judge

X = np.arange(6, dtype=np.float32).reshape(1, 6)


def write(folder, data=b"weights", force=False):
    """A package with one artifact; what is in the artifact does not matter here."""
    binding = Binding("x", "serving_default_x:0", (1, 6), "float32", permutation=(1, 0))
    comparison = Comparison("y")
    comparison.add(X, X)
    evidence = Evidence("npy", "test.npy", "0" * 64, 1, 1, real=True, labeled=False)
    verdict = judge("model_fp32.tflite", "fp32", [comparison.metrics()], [Gate("cosine", 0.9)], evidence)
    with drafted(folder, force=force) as draft:
        artifact = Artifact("model_fp32.tflite", "tflite", "fp32", data, (binding,), (replace(binding, source="y"),), ("a note",))
        packaged = PackagedArtifact.of(artifact, draft.add(artifact.file, data), {"CONV_2D": 2})
        package = Package(
            path=folder,
            name="net-android",
            target="android",
            threads=4,
            delegates={"tflite": ("gpu", "xnnpack")},
            source=SourceRecord("keras", "net.keras", "1" * 64),
            inputs=(TensorSpec("x", ("batch", 6)),),
            outputs=(TensorSpec("y", (1, 6)),),
            preprocess=Preprocess.parse("imagenet"),
            classes=("cat", "dog"),
            artifacts=(packaged,),
            companions=(draft.add("ops.config", b"text"),),
            golden=draft.add_golden([({"x": X}, {"y": X * 2}), ({"x": X + 1}, {"y": X * 3})]),
            verification=Verification(evidence, Gates({"fp32": (Gate("cosine", 0.9),)}), (verdict,)),
            notes=("left out: int8",),
            versions={"edgekit": "0.1.0"},
            measured={"date": "2026-01-01T00:00:00+00:00"},
        )
        draft.finish(package)
    return package


def fail_while_writing(folder):
    with drafted(folder) as draft:
        draft.add("model.onnx", b"half")
        raise ZeroDivisionError


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_what_is_read(tmp_path):
    written = write(tmp_path / "p")
    assert load_package(tmp_path / "p") == written


def test_golden_vectors_come_back(tmp_path):
    write(tmp_path / "p")
    (first, expected), (second, _) = load_package(tmp_path / "p").golden_vectors()
    np.testing.assert_array_equal(first["x"], X)
    np.testing.assert_array_equal(expected["y"], X * 2)
    np.testing.assert_array_equal(second["x"], X + 1)


def test_same_input_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    time.sleep(1.1)  # a zip holds times in steps of two seconds, gzip and many formats in one
    write(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(tmp_path / "new" / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_package(tmp_path):
    write(tmp_path / "p")
    before = files(tmp_path / "p")
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(tmp_path / "p")
    assert files(tmp_path / "p") == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_package_is_replaced(tmp_path):
    write(tmp_path / "p", b"old")
    write(tmp_path / "p", b"new")
    assert (tmp_path / "p" / "model_fp32.tflite").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_package_at_the_end_of_a_link_is_replaced_there(tmp_path):
    write(tmp_path / "p", b"old")
    (tmp_path / "link").symlink_to("p")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "p" / "model_fp32.tflite").read_bytes() == b"new"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_somebody_elses_is_never_replaced(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PackageError, match="not a package"):
        write(tmp_path, force=force)
    assert (tmp_path / "thesis.tex").exists()


def test_files_that_somebody_added_are_lost_only_with_force(tmp_path):
    write(tmp_path / "p")
    (tmp_path / "p" / "notes.txt").write_text("mine")
    with pytest.raises(PackageError, match=r"notes\.txt"):
        write(tmp_path / "p")
    assert (tmp_path / "p" / "notes.txt").exists()
    write(tmp_path / "p", force=True)
    assert not (tmp_path / "p" / "notes.txt").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "p").write_text("a file")
    with pytest.raises(PackageError, match="is a file"):
        write(tmp_path / "p")


def test_an_unwritable_place_is_told_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PackageError, match="cannot be written"), drafted(tmp_path / "file" / "p"):
        pytest.fail("the block must not be entered")


def test_a_folder_without_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PackageError, match="cannot be written"):
        write(tmp_path / "p")


WRITER = """
import runpy, sys
from pathlib import Path
write = runpy.run_path(sys.argv[2])["write"]
print("ready", flush=True)
for turn in range(10**6):
    write(Path(sys.argv[1]), b"%d" % turn * 20000)
"""


def test_a_kill_at_any_moment_leaves_a_whole_package(tmp_path):
    write(tmp_path / "p")
    for moment in range(12):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "p"), __file__]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.011 * moment)
            process.send_signal(signal.SIGKILL)
        load_package(tmp_path / "p")
    write(tmp_path / "p")  # the next export clears away what the killed ones left
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_the_stage_of_a_living_process_and_of_another_host_are_left_alone(tmp_path):
    stages = [tmp_path / f".p.edgekit-{staging._host()}-{os.getppid()}-00", tmp_path / ".p.edgekit-elsewhere-1-00"]
    for stage in stages:
        stage.mkdir()
    write(tmp_path / "p")
    assert all(stage.exists() for stage in stages)


def test_an_interrupted_replacement_without_exchange_is_undone(tmp_path, monkeypatch):
    """Where a system cannot exchange two folders there is a moment between two renames; a kill then leaves `….old`."""
    write(tmp_path / "p", b"old")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "p").rename(tmp_path / f".p.edgekit-{staging._host()}-{dead.pid}-00.old")
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(tmp_path / "p")
    assert load_package(tmp_path / "p").artifacts[0].bytes == 3
    monkeypatch.setattr(staging, "_swap", lambda a, b: False)
    write(tmp_path / "p", b"newer")
    assert load_package(tmp_path / "p").artifacts[0].bytes == 5
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_tampering_is_found(tmp_path):
    write(tmp_path / "p")
    path = tmp_path / "p" / "model_fp32.tflite"
    path.write_bytes(b"wEights")
    with pytest.raises(PackageError, match=r"model_fp32\.tflite is not the file that was exported"):
        load_package(tmp_path / "p")


@pytest.mark.parametrize("name", ["model_fp32.tflite", "golden.npz", "ops.config"])
def test_a_missing_file_is_named(tmp_path, name):
    write(tmp_path / "p")
    (tmp_path / "p" / name).unlink()
    with pytest.raises(PackageError, match=f"lacks {name}"):
        load_package(tmp_path / "p")


def edit(folder, change):
    path = folder / "edgekit.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(schema=2), "schema 2"),
        (lambda d: d.pop("schema"), "cannot be read"),
        (lambda d: d.pop("source"), "the key 'source' is missing"),
        (lambda d: d["artifacts"][0].update(file="../../etc/passwd"), "not a file name of a package"),
        (lambda d: d["golden"].update(file="/etc/passwd"), "not a file name of a package"),
        (lambda d: d["artifacts"][0].update(inputs=3), "the manifest is wrong"),
        (lambda d: d["verification"]["gates"]["fp32"].update(psnr=3), "'psnr' is not a metric"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path, change, says):
    write(tmp_path / "p")
    edit(tmp_path / "p", change)
    with pytest.raises(PackageError) as error:
        load_package(tmp_path / "p")
    assert says in str(error.value)


def test_a_truncated_manifest(tmp_path):
    write(tmp_path / "p")
    path = tmp_path / "p" / "edgekit.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(PackageError, match="cannot be read"):
        load_package(tmp_path / "p")


def test_a_folder_that_is_no_package(tmp_path):
    with pytest.raises(PackageError, match="is not a package"):
        load_package(tmp_path)


def test_the_hash_is_that_of_the_file(tmp_path):
    write(tmp_path / "p", b"abc")
    assert load_package(tmp_path / "p").artifacts[0].sha256 == hashlib.sha256(b"abc").hexdigest()
