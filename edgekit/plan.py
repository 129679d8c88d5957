"""What an export will make, decided before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.errors import InputError, QuantizeError, TargetError
from edgekit.quantize.precision import AUTO, PRECISIONS, parse_precision
from edgekit.quantize.search import Budget, Found
from edgekit.sources.onnx_file import is_quantized_file
from edgekit.targets import Target
from edgekit.verify.gates import Override

# The precisions of fixed ranges.
_MEASURED = frozenset(("int8", "int16x8", AUTO))


@dataclass(frozen=True)
class Build:
    """One compilation: ONNX Runtime's gives several formats at once."""

    runtime: str
    precision: str
    formats: tuple[str, ...]
    input_layout: str
    output_layout: str

    def __str__(self) -> str:
        return f"{self.precision} for {'LiteRT' if self.runtime == 'litert' else 'ONNX Runtime'}"


@dataclass(frozen=True)
class Plan:
    """For whom, in which precisions, by which compilations; held to which gates.

    Args:
        budget: What the precision `auto` may lose; None where it is not made.
    """

    target: Target
    precisions: tuple[str, ...]
    builds: tuple[Build, ...]
    overrides: tuple[Override, ...]
    notes: tuple[str, ...]
    budget: Budget | None

    @property
    def quantizes(self) -> bool:
        """Whether anything gets fixed ranges."""
        return not _MEASURED.isdisjoint(self.precisions)

    def held_to(self, found: Found) -> Plan:
        """With a gate on `auto` that says what its budget says; gates that the user set count over it."""
        metric, threshold = Budget(found.budget).gate(found.measure)
        return replace(self, overrides=(Override(metric, AUTO, threshold), *self.overrides))


def make_plan(
    source: str,
    target: Target,
    precisions: Sequence[str] | None,
    formats: Sequence[str] | None,
    calibration: str | None,
    gates: Sequence[str],
    max_drop: float | None,
) -> Plan:
    """Turn the options of an export into a plan.

    Raises:
        EdgekitError: Options that contradict each other, the target or the source.
    """
    wanted = tuple(dict.fromkeys(parse_precision(p) for p in precisions)) if precisions else target.precisions
    notes: tuple[str, ...] = ()
    if not precisions and is_quantized_file(source):  # its integers are the model: in float it is another one
        wanted = tuple(p for p in wanted if p == "int8") or wanted
    measured = [p for p in wanted if p in _MEASURED]
    if calibration is None and measured and not is_quantized_file(source):
        what = f"{measured[0]} needs calibration data: real inputs from which the ranges of all values are measured"
        if precisions:
            fix = "pass --calibration with a folder of pictures, a .npy or .npz file, or file.py:function"
            raise QuantizeError(what, where=f"--precision {measured[0]}", fix=fix)
        wanted = tuple(p for p in wanted if p not in measured)
        notes = (f"left out: {what}, and --calibration was not given",)
    for format in formats or ():
        if format not in target.formats:
            fix = "its formats are " + ", ".join(target.formats)
            raise InputError(f"the target {target.name} has no format {format!r}", where="--format", fix=fix)
    tables = [a for a in target.artifacts if not formats or a.format in formats]
    builds = []
    for precision in (p for p in (*PRECISIONS, AUTO) if p in wanted):
        fitting = [a for a in tables if ("int8" if precision == AUTO else precision) in a.precisions]
        if not fitting:
            reason = target.why_not(precision, formats or None)
            what = f"the target {target.name} has no artifact in {precision}" + (f" ({reason})" if reason else "")
            raise TargetError(what, fix="choose others with --precision or --format")
        for runtime in ("litert", "ort"):
            mine = [a for a in fitting if (a.format == "tflite") == (runtime == "litert")]
            if mine:
                layouts = (mine[0].input_layout, mine[0].output_layout)
                builds.append(Build(runtime, precision, tuple(a.format for a in mine), *layouts))
    made = tuple(dict.fromkeys(build.precision for build in builds))
    overrides = tuple(Override.parse(gate) for gate in gates)
    target.gates.overridden(overrides, made)  # a wrong --gate is told now, not after the work
    return Plan(target, made, tuple(builds), overrides, notes, _budget(max_drop, made))


def _budget(max_drop: float | None, precisions: Sequence[str]) -> Budget | None:
    if (max_drop is None) == (AUTO not in precisions):
        return None if max_drop is None else Budget(max_drop)
    if max_drop is None:
        raise InputError(
            "the precision auto needs a budget", where="--precision auto", fix="say with --max-drop 0.5 what may be lost"
        )
    raise InputError("a budget is for the precision auto", where="--max-drop", fix="add --precision auto")
