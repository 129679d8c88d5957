"""The tests of scripts/conformance.py: which there are, which are in scope, and what one attempt does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.hub import OLDEST_OPSET

MODES = ("given", "frozen")
STORED = ("simple", "pytorch-operator", "pytorch-converted")  # sets that onnx carries as files; the node tests are generated
NUMBERS = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()


@dataclass(frozen=True, eq=False)
class Case:
    """A model of one or a few nodes with its inputs and the outputs that ONNX gives, in the order of the graph."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    rtol: float
    atol: float


def collect() -> list[Case]:
    """All tests, by name. The random data of the generated ones come from a fixed seed."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [
            Case(t.name, _operator(t.name, t.model), t.model, *map(_arrays, t.data_sets[0]), t.rtol, t.atol)
            for t in collect_testcases(None)
        ]
    made += [_stored(t) for kind in STORED for t in load_model_tests(kind=kind)]
    return sorted(made, key=lambda case: case.name)


def outside(case: Case) -> str:
    """Why a test is not in scope, empty where it is: kinds and types of values that LiteRT has no tensors for."""
    graph = case.model.graph
    for place, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                return f"{place} of kind {kind.removesuffix('_type')}"
            dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            if _numpy_name(value.type.tensor_type.elem_type) not in NUMBERS:
                return f"{place} of type {dtype.lower()}"
    opset = max((o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if opset < OLDEST_OPSET:
        return f"opset {opset}: edgekit reads {OLDEST_OPSET} and newer"
    if any(n.domain.startswith("ai.onnx.preview") for n in graph.node):
        return "an operator for training"
    return ""


def attempt(case: Case, mode: str) -> tuple[str, str]:
    """Compile, load, run and compare one test; the outcome and its reason (scripts/conformance.py names the outcomes)."""
    import onnx_ir

    from edgekit import litert
    from edgekit.errors import EdgekitError

    frozen = _frozen(case) if mode == "frozen" else case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = litert.compile(onnx_ir.serde.deserialize_model(frozen.model))
        except EdgekitError as error:
            return "refused", f"{error.what} [{error.where}]"
        except Exception as error:
            return "fault", _said(error)
    for alone in (False, True):
        try:
            results = _interpret(data, frozen, alone)
        except Exception as error:
            return "unloadable", ("builtin kernels: " if alone else "") + _said(error)
        difference = _difference(frozen, results)
        if difference:
            return "wrong", ("builtin kernels: " if alone else "xnnpack: ") + difference
    return "pass", ""


def _said(error: Exception) -> str:
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:300]} [{Path(frame.filename).name}:{frame.lineno}]"


def _interpret(data: bytes, case: Case, alone: bool) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgekit.runtimes import read_tensor

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if alone else OpResolverType.AUTO
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kernels)
    inputs, outputs = _places(interpreter)
    graph = case.model.graph
    constant = {t.name for t in graph.initializer}
    names = [v.name for v in graph.input if v.name not in constant]
    given = {inputs[name]: np.asarray(array) for name, array in zip(names, case.inputs, strict=False)}
    for place, array in given.items():
        interpreter.resize_tensor_input(place, array.shape)
    interpreter.allocate_tensors()
    for place, array in given.items():
        interpreter.set_tensor(place, array)
    interpreter.invoke()
    return [read_tensor(interpreter, outputs[v.name]) for v in graph.output]


def _places(interpreter: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Inputs and outputs by name. The signature's runner, while there is one, keeps the interpreter from running by itself."""
    runner = interpreter.get_signature_runner("serving_default")
    sides = runner.get_input_details(), runner.get_output_details()
    inputs, outputs = ({name: detail["index"] for name, detail in side.items()} for side in sides)
    return inputs, outputs


def _difference(case: Case, results: Sequence[np.ndarray]) -> str:
    """How the results differ from what is expected, within the tolerance of the test and float32's own at the output's scale."""
    for value, want, have in zip(case.model.graph.output, case.outputs, results, strict=True):
        want = np.asarray(want)
        if have.shape != want.shape:
            return f"{value.name} has shape {have.shape}, not {want.shape}"
        if have.dtype != want.dtype:
            return f"{value.name} is {have.dtype}, not {want.dtype}"
        a, b = _bounded(have), _bounded(want)
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        slack = case.atol + (4 * np.finfo(np.float32).eps * scale if want.dtype.kind == "f" else 0.0)
        if not np.allclose(a, b, rtol=case.rtol, atol=slack, equal_nan=True):
            return f"{value.name} differs by up to {np.nanmax(np.abs(a - b)):.3g} where the largest value is {scale:.3g}"
    return ""


def _bounded(array: np.ndarray) -> np.ndarray:
    """In float64, infinities as the largest float32: the builtin kernels of ADD and MUL clamp to that."""
    limit = float(np.finfo(np.float32).max)
    wide = array.astype(np.float64)
    return np.clip(wide, -limit, limit) if array.dtype.kind == "f" else wide


def _frozen(case: Case) -> Case:
    """Every input but the first made a constant."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph, model_inputs = model.graph, list(model.graph.input)
    for value, array in list(zip(model_inputs, case.inputs, strict=False))[1:]:
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
        graph.input.remove(value)
    model.ir_version = max(model.ir_version, 4)  # from then on an initializer need not be an input
    return Case(case.name, case.operator, model, case.inputs[:1], case.outputs, case.rtol, case.atol)


def _stored(test: Any) -> Case:
    folder = Path(test.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    inputs, outputs = ([_read(p) for p in sorted(data.glob(f"{kind}_*.pb"), key=_number)] for kind in ("input", "output"))
    return Case(test.name, _operator(test.name, model), model, inputs, outputs, test.rtol, test.atol)


def _arrays(values: Sequence[Any]) -> list[Any]:
    """Tests of types that numpy lacks carry TensorProtos."""
    return [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def _read(path: Path) -> np.ndarray | None:
    """A tensor; None for a sequence, whose test is out of scope."""
    try:
        return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    except Exception:
        return None


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _operator(name: str, model: onnx.ModelProto) -> str:
    """The operator that a test is about: its only node, or for an expanded function the name of the test."""
    nodes = model.graph.node
    return nodes[0].op_type if len(nodes) == 1 and "_expanded" not in name else "(several)"


def _numpy_name(elem_type: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name if elem_type else "undefined"
