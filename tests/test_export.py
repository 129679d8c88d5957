"""From a model to a verified package, on a real classifier of real digits."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

import edgekit
from edgekit.errors import InputError, QuantizeError, TargetError
from edgekit.hub.quantized import KEPT
from edgekit.package import load_package
from edgekit.runtimes import Runner, open_session
from edgekit.schema import manifest_schema

SAMPLES = Path(__file__).parent.parent / "samples"
DIGITS = SAMPLES / "digits.onnx"
CALIBRATION = str(SAMPLES / "digits_nchw_calibration.npz")
TEST = str(SAMPLES / "digits_nchw_test.npz")
LABELS = str(SAMPLES / "digits_labels.npy")


def export(folder, **options):
    return edgekit.export(DIGITS, **{"target": "linux", "output": folder, "data": TEST, "samples": 40, **options})


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return export(tmp_path_factory.mktemp("export") / "digits", calibration=CALIBRATION, labels=LABELS, samples=None)


def test_every_precision_passes_on_real_labelled_data(package):
    assert package.verdict == "pass"
    assert [a.file for a in package.artifacts] == [
        "model_fp32.tflite",
        "model_fp32.onnx",
        "model_fp32.ort",
        "model_fp16.tflite",
        "model_fp16.onnx",
        "model_int8.tflite",
        "model_int8.onnx",
        "model_int8.ort",
    ]
    by_file = {verdict.file: verdict for verdict in package.verification.artifacts}
    assert by_file["model_fp32.tflite"].worst("max_relative_error") < 1e-5
    assert by_file["model_fp16.tflite"].worst("cosine") > 0.9999
    for verdict in by_file.values():
        assert verdict.classifier.source_accuracy > 0.97
        assert verdict.classifier.accuracy > verdict.classifier.source_accuracy - 0.01
    evidence = package.verification.evidence
    assert (evidence.samples, evidence.real, evidence.labeled) == (len(np.load(LABELS)), True, True)


def test_the_manifest_keeps_its_schema(package):
    manifest = json.loads((package.path / "edgekit.json").read_text())
    jsonschema.validate(manifest, manifest_schema(), cls=jsonschema.Draft202012Validator)


def test_what_is_returned_is_what_is_loaded(package):
    assert load_package(package.path).to_json() == package.to_json()


def test_the_package_holds_what_the_manifest_lists(package):
    listed = {file.file for file in (*package.artifacts, *package.companions, package.golden)}
    assert {path.name for path in package.path.iterdir()} == listed | {"edgekit.json"}
    assert "model_int8.required_operators.config" in {file.file for file in package.companions}


def test_the_tflite_takes_pictures_in_nhwc(package):
    tflite = package.artifacts[0]
    assert (tflite.inputs[0].shape, tflite.inputs[0].permutation) == ((1, 8, 8, 1), (0, 2, 3, 1))
    assert "TRANSPOSE" not in tflite.operators


def test_golden_vectors_are_the_sources_own_outputs(package):
    session = open_session(DIGITS)
    vectors = package.golden_vectors()
    assert len(vectors) == 8
    assert len({int(results["digit"].argmax()) for _, results in vectors}) > 1  # spread over the set, not its beginning
    for feeds, results in vectors:
        np.testing.assert_allclose(session.run(["digit"], dict(feeds))[0], results["digit"], rtol=1e-5)


def test_the_same_input_gives_the_same_bytes(package, tmp_path):
    again = export(tmp_path / "digits", calibration=CALIBRATION, labels=LABELS, samples=None)
    for path in package.path.iterdir():
        if path.name != "edgekit.json":
            assert path.read_bytes() == (again.path / path.name).read_bytes(), path.name
    first, second = ({**json.loads((p.path / "edgekit.json").read_text()), "measured": None} for p in (package, again))
    assert first == second


def test_verify_repeats_it_without_the_source(package):
    found = edgekit.verify(package.path)
    assert (found.verdict, found.evidence.kind, found.evidence.runs) == ("pass", "golden", 8)


def test_verify_on_other_data_with_the_source(package):
    found = edgekit.verify(package, data=TEST, labels=LABELS, source=DIGITS, samples=200)
    assert (found.verdict, found.evidence.samples, found.evidence.labeled) == ("pass", 200, True)
    assert found.artifacts[0].classifier.accuracy > 0.9


def test_verify_on_other_data_needs_the_source(package):
    with pytest.raises(InputError, match="need the source"):
        edgekit.verify(package, data=TEST)


def test_verify_refuses_another_source(package, tmp_path):
    model = onnx.load(DIGITS)
    model.doc_string = "not the same file"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="not the model that the package was made of"):
        edgekit.verify(package, data=TEST, source=tmp_path / "other.onnx")


def test_verify_with_a_stricter_gate_fails(package):
    found = edgekit.verify(package, gates=["int8.max_abs_error<=1e-6"])
    verdicts = {a.file: a.verdict for a in found.artifacts}
    assert found.exit_code == 2
    assert verdicts["model_fp32.tflite"] == "pass"
    assert verdicts["model_int8.tflite"] == "fail"


def with_a_wrong_weight(data):
    """The same network with one filter of its first convolution negated."""
    model = onnx.load_from_string(data)
    name = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    tensor = next(t for t in model.graph.initializer if t.name == name)
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0] *= -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, name))
    return model.SerializeToString()


def test_a_wrong_artifact_fails_the_export_and_is_written_with_its_verdict(tmp_path, monkeypatch):
    from dataclasses import replace

    import edgekit.ort

    build = edgekit.ort.build

    def tampered(hub, precision, **options):
        return [
            replace(a, data=with_a_wrong_weight(a.data)) if a.format == "onnx" else a for a in build(hub, precision, **options)
        ]

    monkeypatch.setattr(edgekit.ort, "build", tampered)
    package = export(tmp_path / "p", precisions=["fp32"], formats=["onnx", "ort"])
    assert package.verification.exit_code == 2
    assert load_package(tmp_path / "p").verdict == "fail"
    assert {a.file: a.verdict for a in package.verification.artifacts} == {"model_fp32.onnx": "fail", "model_fp32.ort": "pass"}


def test_a_wrong_artifact_with_a_right_hash_is_found_by_verify(tmp_path):
    from hashlib import sha256

    package = export(tmp_path / "p", precisions=["fp32"], formats=["onnx"])
    wrong = with_a_wrong_weight((package.path / "model_fp32.onnx").read_bytes())
    (package.path / "model_fp32.onnx").write_bytes(wrong)
    manifest = (package.path / "edgekit.json").read_text()
    (package.path / "edgekit.json").write_text(manifest.replace(package.artifacts[0].sha256, sha256(wrong).hexdigest()))
    assert edgekit.verify(package.path).exit_code == 2


def test_random_inputs_never_read_as_a_pass(tmp_path):
    package = export(tmp_path / "p", data=None, samples=None, precisions=["fp32"])
    assert package.verdict == "unverified"
    assert not package.verification.evidence.real
    assert all("random inputs" in a.reasons[0] for a in package.verification.artifacts)
    assert edgekit.verify(package.path).verdict == "unverified"


@pytest.mark.parametrize(("spelling", "name"), [("w8a8", "int8"), ("w8a16", "int16x8")])
def test_fixed_ranges_without_calibration_data_are_an_error_where_they_were_asked_for(tmp_path, spelling, name):
    with pytest.raises(QuantizeError, match=f"{name} needs calibration data") as error:
        export(tmp_path / "p", precisions=[spelling])
    assert "--calibration" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_int8_is_left_out_and_said_where_nobody_asked_for_it(tmp_path):
    package = export(tmp_path / "p", formats=["onnx"])
    assert {a.precision for a in package.artifacts} == {"fp32", "fp16"}
    assert package.notes[0].startswith("left out: int8 needs calibration data")


@pytest.fixture(scope="module", params=["QDQ", "QOperator"])
def quantized_digits(request, tmp_path_factory):
    """The sample as onnxruntime's own quantizer writes it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            images = np.load(CALIBRATION)
            self.feeds = iter([{"image": image[None]} for image in images[images.files[0]][:32]])

        def get_next(self):
            return next(self.feeds, None)

    path = tmp_path_factory.mktemp("quantized") / "digits.onnx"
    form = QuantFormat[request.param]
    quantize_static(onnx.load(DIGITS), path, Reader(), quant_format=form, activation_type=QuantType.QInt8, per_channel=True)
    return path


@pytest.mark.parametrize("calibration", [None, CALIBRATION], ids=["no_calibration", "calibration"])
def test_a_model_that_is_quantized_already_keeps_its_integers(quantized_digits, tmp_path, calibration):
    package = edgekit.export(
        quantized_digits,
        target="linux",
        output=tmp_path / "p",
        data=TEST,
        samples=40,
        precisions=["int8", "int8-dynamic", "int16x8", "int8-weights", "int4-weights"],
        calibration=calibration,
    )
    assert package.verdict == "pass"
    assert len(package.artifacts) == 11
    for artifact, verdict in zip(package.artifacts, package.verification.artifacts, strict=True):
        assert KEPT in artifact.notes
        assert verdict.worst("max_relative_error") < 1e-6
    assert not any("calibrated on" in note for note in package.notes)


def test_a_quantized_model_becomes_int8_alone_where_nobody_asks_for_more(quantized_digits, tmp_path):
    package = edgekit.export(quantized_digits, target="linux", output=tmp_path / "p", data=TEST, samples=10, formats=["onnx"])
    assert {a.precision for a in package.artifacts} == {"int8"}
    assert package.notes == ()
    assert package.verdict == "pass"


def test_weights_alone_and_sixteen_bits(tmp_path):
    package = export(tmp_path / "p", precisions=["int16x8", "int8-weights"], calibration=CALIBRATION)
    assert package.verdict == "pass"
    assert [a.file for a in package.artifacts] == [
        "model_int16x8.tflite",
        "model_int8-weights.tflite",
        "model_int8-weights.onnx",
    ]
    worst = {v.file: v.worst("cosine") for v in package.verification.artifacts}
    assert worst["model_int16x8.tflite"] > 0.999
    assert worst["model_int8-weights.tflite"] == pytest.approx(worst["model_int8-weights.onnx"], abs=1e-6)
    manifest = json.loads((package.path / "edgekit.json").read_text())
    jsonschema.validate(manifest, manifest_schema(), cls=jsonschema.Draft202012Validator)


def test_four_bits_of_a_network_of_words(tmp_path):
    rng = np.random.default_rng(0)
    text = """<ir_version: 9, opset_import: ["" : 20]> g (int64[1,12] ids) => (float[1,12,64] y) {
        e = Gather(t, ids) h = MatMul(e, w) a = Tanh(h) y = MatMul(a, v) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in {"t": (500, 64), "w": (64, 128), "v": (128, 64)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 8, name))
    onnx.save(model, tmp_path / "words.onnx")
    np.savez(tmp_path / "ids.npz", ids=rng.integers(0, 500, (8, 12)))
    package = edgekit.export(
        tmp_path / "words.onnx", "linux", output=tmp_path / "p", data=str(tmp_path / "ids.npz"), precisions=["int4-weights"]
    )
    assert package.verdict == "pass"
    assert [(a.file, a.bytes < 35_000) for a in package.artifacts] == [
        ("model_int4-weights.tflite", True),
        ("model_int4-weights.onnx", True),
    ]


def test_a_precision_that_would_change_nothing_is_refused(tmp_path):
    with pytest.raises(QuantizeError, match="nothing to store in 4 bits"):
        export(tmp_path / "p", precisions=["int4-weights"])
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_no_delegate_runs_is_refused_with_the_reason(tmp_path):
    with pytest.raises(TargetError, match=r"no artifact in int16x8 .*XNNPACK"):
        export(tmp_path / "p", target="android", precisions=["int16x8"], calibration=CALIBRATION)


def test_the_calibration_data_are_the_evidence_where_there_are_no_others(tmp_path):
    package = export(tmp_path / "p", data=None, calibration=CALIBRATION, formats=["onnx"], precisions=["int8"])
    assert (package.verification.evidence.origin, package.verdict) == ("digits_nchw_calibration.npz", "pass")
    assert package.notes[-1].startswith("int8 was compared on the samples that it was calibrated on")


def test_a_target_of_ones_own_with_its_limits(tmp_path):
    folder = tmp_path / "watch"
    folder.mkdir()
    text = 'summary = "A watch"\nprecisions = ["fp32"]\n[[artifacts]]\nformat = "tflite"\nprecisions = ["fp32"]\n'
    (folder / "target.toml").write_text(text + 'forbidden_operators = ["MEAN"]\n')
    with pytest.raises(TargetError, match=r"model_fp32\.tflite uses MEAN"):
        export(tmp_path / "p", target=folder)
    (folder / "target.toml").write_text(text + "[limits]\nmax_bytes = 100\n")
    with pytest.raises(TargetError, match="watch takes 100"):
        export(tmp_path / "p", target=folder)
    (folder / "target.toml").write_text(text)
    assert [a.file for a in export(tmp_path / "p", target=folder).artifacts] == ["model_fp32.tflite"]
    assert {path.name for path in tmp_path.iterdir()} == {"watch", "p"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"labels": LABELS, "data": None}, InputError, "labels need the data"),
        ({"formats": ["coreml"]}, InputError, "has no format 'coreml'"),
        ({"formats": ["ort"], "precisions": ["fp16"]}, TargetError, "no artifact in fp16"),
        ({"precisions": ["int3"]}, InputError, "'int3' is not a precision"),
        ({"gates": ["fp16.cosine>=0.9"], "precisions": ["fp32"]}, InputError, "no fp16 artifact"),
        ({"target": "iphone"}, TargetError, "no target 'iphone'"),
        ({"classes": "no-such-file.txt"}, InputError, "class names cannot be read"),
        ({"preprocess": "imagenett"}, InputError, "imagenett"),
        ({"inputs": ["image=1x1x9x9"]}, Exception, "9"),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(tmp_path, options, error, says):
    with pytest.raises(edgekit.EdgekitError) as raised:
        export(tmp_path / "p", **options)
    assert isinstance(raised.value, error)
    assert says in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_pictures_preprocessing_and_class_names_are_in_the_contract(tmp_path):
    with np.load(TEST) as archive:
        pictures = (archive[archive.files[0]][:12, 0] * 255).round().astype(np.uint8)
    for i, picture in enumerate(pictures):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{i:02}.png")
    (tmp_path / "names.txt").write_text("\n".join("zero one two three four five six seven eight nine".split()))
    options = {
        "data": str(tmp_path / "photos"),
        "preprocess": "unit,color=gray,layout=nchw",
        "classes": str(tmp_path / "names.txt"),
    }
    package = export(tmp_path / "p", precisions=["fp32"], samples=None, **options)
    assert package.verification.evidence.kind == "images"
    assert (package.preprocess.color, package.classes[3]) == ("gray", "three")
    assert load_package(tmp_path / "p").preprocess == package.preprocess


def test_an_open_batch_stays_open(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 20]> g (float[batch,4] x) => (float[batch,3] y)
        <float[4,3] w = {1.0, -2.0, 0.5, 2.0, 0.25, 1.0, -1.0, 1.0, 3.0, 0.5, 1.0, 1.0}> { y = MatMul(x, w) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    options = {"dynamic": ["batch"], "formats": ["onnx"], "precisions": ["fp32"], "data": str(tmp_path / "x.npy")}
    package = edgekit.export(tmp_path / "m.onnx", "linux", output=tmp_path / "p", **options)
    assert (package.inputs[0].shape, package.verdict) == (("batch", 4), "pass")
    artifact = load_package(package.path).artifacts[0]
    runner = Runner(package.path / artifact.file, artifact.format, artifact.inputs, artifact.outputs)
    assert runner.run({"x": np.ones((7, 4), np.float32)})["y"].shape == (7, 3)
    assert edgekit.verify(package, data=str(tmp_path / "x.npy"), source=tmp_path / "m.onnx").verdict == "pass"
