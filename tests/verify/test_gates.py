"""Gates, and what `--gate` does to them."""

import pytest

from edgekit.errors import InputError
from edgekit.verify.gates import Gate, Gates, Override

TARGET = Gates({"fp32": (Gate("max_relative_error", 1e-4),), "int8": (Gate("cosine", 0.95), Gate("top1_agreement", 0.9))})


def overridden(*texts, precisions=("fp32", "int8")):
    return TARGET.overridden([Override.parse(text) for text in texts], precisions)


def test_a_gate_knows_its_direction():
    assert Gate("cosine", 0.9).keeps(0.95)
    assert not Gate("cosine", 0.9).keeps(0.85)
    assert Gate("max_abs_error", 0.1).keeps(0.1)
    assert not Gate("max_abs_error", 0.1).keeps(0.2)


@pytest.mark.parametrize("metric", ["cosine", "max_abs_error"])
def test_nan_keeps_no_gate(metric):
    assert not Gate(metric, 0.5).keeps(float("nan"))


def test_an_override_of_one_precision():
    gates = overridden("int8.top1_agreement>=0.98")
    assert gates.of("int8") == (Gate("cosine", 0.95), Gate("top1_agreement", 0.98))
    assert gates.of("fp32") == TARGET.of("fp32")


def test_an_override_of_all_precisions_and_a_peers_spelling():
    gates = overridden("cosine >= 0.999", "w8a8.cosine>=0.97")
    assert gates.of("fp32") == (Gate("max_relative_error", 1e-4), Gate("cosine", 0.999))
    assert Gate("cosine", 0.97) in gates.of("int8")


def test_a_gate_is_taken_away():
    assert overridden("int8.top1_agreement=off").of("int8") == (Gate("cosine", 0.95),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accuracy=0.9", "write accuracy>=0.9"),
        ("cosine<=0.9", "cosine is good when >="),
        ("psnr>=30", "'psnr' is not a metric"),
        ("int8.cosine", "cannot read the gate"),
        ("cosine>=high", "'high' is not a number"),
        ("cosine>=nan", "finite"),
        ("int9.cosine>=0.9", "int9"),
    ],
)
def test_a_wrong_gate_says_what_is_right(text, says):
    with pytest.raises(InputError) as error:
        Override.parse(text)
    assert says in str(error.value)


def test_a_gate_on_a_precision_that_is_not_made():
    with pytest.raises(InputError, match="no fp16 artifact"):
        overridden("fp16.cosine>=0.9")


def test_json_round_trip():
    assert Gates.from_json(TARGET.to_json()) == TARGET
