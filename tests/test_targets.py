"""Targets are data, and a mistake in the data is told with its key and file."""

import pytest

from edgekit.errors import TargetError
from edgekit.quantize import PRECISIONS
from edgekit.targets import list_targets, load_target

GOOD = """
summary = "A watch"
precisions = ["int8"]

[[artifacts]]
format = "tflite"
precisions = ["int8"]
input_layout = "nhwc"
forbidden_operators = ["CUSTOM"]

[[unsupported]]
format = "tflite"
precisions = ["int16x8"]
reason = "its chip multiplies 8 bits by 8"

[gates.int8]
cosine = 0.97

[limits]
max_bytes = 1000
"""


def written(folder, text):
    (folder / "target.toml").write_text(text)
    return folder


def test_what_edgekit_ships():
    targets = {target.name: target for target in list_targets()}
    assert set(targets) >= {"android", "linux", "raspberry-pi"}
    for target in targets.values():
        assert target.precisions == ("fp32", "fp16", "int8")
        assert next(a for a in target.artifacts if a.format == "tflite").input_layout == "nhwc"
        assert {gate.metric for gate in target.gates.of("fp32")} >= {"max_relative_error"}


def test_a_folder_of_ones_own(tmp_path):
    target = load_target(written(tmp_path, GOOD))
    assert (target.name, target.threads, target.formats) == (tmp_path.name, 1, ("tflite",))
    assert [str(gate) for gate in target.gates.of("int8")] == ["cosine >= 0.97"]


def test_limits_name_the_file_and_the_operator(tmp_path):
    target = load_target(written(tmp_path, GOOD))
    assert target.problems("m.tflite", "tflite", 999, {"CONV_2D": 3}) == []
    too_large, forbidden = target.problems("m.tflite", "tflite", 1001, {"CUSTOM": 2})
    assert "1,001 bytes" in too_large
    assert "CUSTOM 2 times" in forbidden


def test_why_a_precision_is_not_made(tmp_path):
    target = load_target(written(tmp_path, GOOD))
    assert target.why_not("int16x8") == "tflite: its chip multiplies 8 bits by 8"
    assert target.why_not("int16x8", ["onnx"]) == target.why_not("fp16") == ""
    (problem,) = target.problems("m.tflite", "tflite", 9, {}, "int16x8")
    assert "its chip multiplies 8 bits by 8" in problem
    (problem,) = target.problems("m.tflite", "tflite", 9, {}, "fp16")
    assert "tflite is made in int8" in problem
    assert target.problems("m.tflite", "tflite", 9, {}, "int8") == []


def test_every_precision_is_made_or_has_a_reason():
    for target in list_targets():
        for artifact in target.artifacts:
            for precision in PRECISIONS:
                assert (precision in artifact.precisions) != bool(target.why_not(precision, [artifact.format])), (
                    f"{target.name}: {artifact.format} in {precision}"
                )
        made = {precision for artifact in target.artifacts for precision in artifact.precisions}
        assert all(target.gates.of(precision) for precision in made)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("summary =", "sumary =", "unknown key sumary"),
        ('summary = "A watch"', "", "summary is missing"),
        ('format = "tflite"', 'format = "coreml"', "artifacts.format is 'coreml'"),
        ('precisions = ["int8"]\ninput', 'precisions = ["int9"]\ninput', "artifacts.precisions must be a list"),
        ("input_layout", "layout", "unknown key artifacts.layout"),
        ("cosine = 0.97", "cosin = 0.97", "unknown key gates.int8.cosin"),
        ("cosine = 0.97", "cosine = 'high'", "gates.int8.cosine must be a number"),
        ("cosine = 0.97", "cosine = nan", "finite"),
        ("[gates.int8]", "[gates.int4]", "unknown key gates.int4"),
        ('["int16x8"]', '["int16"]', "unsupported.precisions must be a list"),
        ('["int16x8"]', '["int8"]', "listed both in [[artifacts]] and in [[unsupported]]"),
        ("reason =", "because =", "unknown key unsupported.because"),
        ("max_bytes = 1000", "max_bytes = 0", "limits.max_bytes must be at least 1"),
        ("max_bytes = 1000", "max_bytes = true", "limits.max_bytes must be a whole number"),
        ("[limits]", "[limits", "target.toml cannot be read"),
    ],
)
def test_a_mistake_is_told_with_key_and_file(tmp_path, before, after, says):
    assert before in GOOD
    with pytest.raises(TargetError) as error:
        load_target(written(tmp_path, GOOD.replace(before, after)))
    assert says in str(error.value)
    assert str(tmp_path / "target.toml") in str(error.value)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(TargetError) as error:
        load_target("iphone")
    assert "android, linux, raspberry-pi" in str(error.value)


def test_a_folder_without_target_toml(tmp_path):
    with pytest.raises(TargetError, match=r"no target\.toml"):
        load_target(tmp_path)
