"""A PyTorch module, whatever file or factory it came from, as a source.

The reference is the module itself: eager, `eval()`, without gradients, float32, on the CPU. The graph comes from
`torch.onnx.export(dynamo=True)`; where that fails, from the older TorchScript exporter, and the graph's notes say so.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import MissingExtra, SourceError
from edgekit.sources.quiet import quiet
from edgekit.sources.shapes import Declared, resolve_inputs
from edgekit.sources.source import NOTES, Source, describe_outputs, distinct_names, first_line

if TYPE_CHECKING:
    import onnx_ir

OPSET = 20
"""What the dynamo exporter writes without converting."""


def torch_source(
    module: Any,
    spec: str,
    sha256: str,
    declared: Sequence[Declared],
    *,
    inputs: Sequence[TensorSpec],
    dynamic: Sequence[str],
    call: Callable[..., Any] | None = None,
    free: bool = True,
    scripted: bool = False,
) -> Source:
    """A module as a source.

    Args:
        declared: Its inputs, in the order in which `call` takes them; the names are those of `forward`'s parameters.
        call: How to give the module its tensors; by keyword if this is None.
        free: `inputs` may contradict the declared shapes.
        scripted: It is a TorchScript module, which `torch.export` does not take as it is.
    """
    torch = import_torch()
    fixed = resolve_inputs(declared, inputs, dynamic, spec, free=free)
    keys = [item.name for item in fixed]
    names = distinct_names(keys)
    fixed = tuple(TensorSpec(name, item.shape, item.dtype) for name, item in zip(names, fixed, strict=True))

    def by_keyword(*tensors: Any) -> Any:
        return module(**dict(zip(keys, tensors, strict=True)))

    output_names: list[str] = []
    adapter = _adapter(torch, module, call or by_keyword, names, output_names, spec)

    def reference(feeds: Feeds) -> Results:
        with torch.no_grad():
            tensors = adapter(*(torch.from_numpy(np.array(feeds[name])) for name in names))
        return dict(zip(output_names, (tensor.detach().numpy() for tensor in tensors), strict=True))

    def convert() -> onnx_ir.Model:
        return export(adapter, fixed, outputs, spec, scripted=scripted)

    outputs = describe_outputs(reference, fixed, spec)
    return Source("torch", spec, sha256, fixed, outputs, reference, convert)


def import_torch() -> Any:
    """`torch`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        with quiet():
            import torch
    except ImportError as error:
        raise MissingExtra(
            "PyTorch is needed to read this model", where=first_line(error), fix="pip install 'edgekit[torch]'"
        ) from None
    return torch


def forward_parameters(module: Any) -> dict[str, inspect.Parameter]:
    """The parameters of `forward` that take a tensor by name, in order."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def numpy_state(module: Any) -> dict[str, np.ndarray]:
    """A module's parameters and buffers as arrays; dtypes that numpy lacks as bytes."""
    torch = import_torch()

    def array(tensor: Any) -> np.ndarray:
        tensor = tensor.detach().cpu().contiguous()
        try:
            return tensor.numpy()
        except (TypeError, RuntimeError):
            return tensor.reshape(-1).view(torch.uint8).numpy()

    return {name: array(tensor) for name, tensor in module.state_dict().items() if isinstance(tensor, torch.Tensor)}


def export(
    adapter: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], spec: str, *, scripted: bool
) -> onnx_ir.Model:
    """The ONNX graph of an adapter.

    Raises:
        SourceError: Neither exporter takes the module; says what both of them said.
    """
    try:
        return _export_dynamo(adapter, inputs, outputs, scripted=scripted)
    except Exception as error:  # the exporter has no exception of its own for a model that it does not take
        reason = _reason(error)
    try:
        model = _export_torchscript(adapter.model if scripted else adapter, inputs, outputs)
    except Exception as error:
        raise SourceError(
            f"PyTorch does not export the module to ONNX: {reason}",
            where=f"{spec} (the TorchScript exporter: {_reason(error)})",
            fix="replace what it names in forward(), or export to ONNX by other means and give edgekit that file",
        ) from error
    model.metadata_props[NOTES] = f"exported by PyTorch's TorchScript exporter, because torch.export failed: {reason}"
    return model


def _adapter(torch: Any, module: Any, call: Callable[..., Any], inputs: Sequence[str], output_names: list[str], spec: str) -> Any:
    """A module from tensors to a tuple of tensors, in the order of the specs. Names the outputs at its first call."""

    class Adapter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            results = dict(_flatten_results(call(*tensors), "", spec))
            if not output_names:
                output_names.extend(distinct_names(list(results), inputs))
            return tuple(results.values())

    adapter = Adapter()
    adapter.training = False  # not eval(): the module is in that mode, and an exported program takes no such call
    return adapter


def _flatten_results(result: Any, prefix: str, spec: str) -> list[tuple[str, Any]]:
    """`output`; `output_0`, `output_1` for a tuple; the keys of a dict or ModelOutput. None and empty values are left out."""
    torch = import_torch()
    if isinstance(result, torch.Tensor):
        return [(prefix or "output", result)]
    if result is None:
        return []
    if isinstance(result, Mapping):
        items = [(f"{prefix}_{key}" if prefix else str(key), value) for key, value in result.items()]
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        items = [(f"{prefix}_{key}" if prefix else key, getattr(result, key)) for key in result._fields]
    elif isinstance(result, tuple | list):
        items = [(f"{prefix or 'output'}_{index}", value) for index, value in enumerate(result)]
        if len(items) == 1 and not prefix:
            items = [("output", result[0])]
    else:
        raise SourceError(
            f"the module returns {type(result).__name__} in {prefix or 'its result'}, not tensors",
            where=spec,
            fix="wrap it in a module that returns the tensors that you need",
        )
    return [pair for name, value in items for pair in _flatten_results(value, name, spec)]


def _example(torch: Any, inputs: Sequence[TensorSpec]) -> tuple[Any, ...]:
    """Zeros of the inputs' shapes; a dynamic dimension gets a size above 1, which `torch.export` would take for a constant."""
    labels = list(dict.fromkeys(d for item in inputs for d in item.shape if isinstance(d, str)))
    sizes = {label: 2 + index for index, label in enumerate(labels)}
    shapes = [[sizes[d] if isinstance(d, str) else d for d in item.shape] for item in inputs]
    return tuple(torch.zeros(shape, dtype=getattr(torch, item.dtype)) for shape, item in zip(shapes, inputs, strict=True))


def _export_dynamo(adapter: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, scripted: bool) -> onnx_ir.Model:
    torch = import_torch()
    example = _example(torch, inputs)
    shapes = [{axis: d for axis, d in enumerate(item.shape) if isinstance(d, str)} for item in inputs]
    dynamic_shapes: Any = None
    if any(shapes):
        dynamic_shapes = (tuple(shapes),)  # one entry for *tensors
    with quiet(), torch.no_grad():
        module = adapter
        if scripted:
            module = _trace_script(torch, adapter, example, symbolic=any(shapes))
            dynamic_shapes = tuple(shapes) if any(shapes) else None
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[item.name for item in inputs],
            output_names=[item.name for item in outputs],
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    return program.model


def _trace_script(torch: Any, adapter: Any, example: tuple[Any, ...], *, symbolic: bool) -> Any:
    """A TorchScript module as a GraphModule of ATen operators, which `torch.export` takes.

    TorchScript's interpreter runs the module while its operators are recorded, so branches on shapes and constants are decided
    and disappear. A branch on the value of a tensor is an error.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    aten = torch.ops.aten

    # Traced archives call the private aten::_convolution, for which the ONNX exporter has no function.
    def convolution(x: Any, weight: Any, bias: Any, *arguments: Any) -> Any:
        return aten.convolution.default(x, weight, bias, *arguments[:6])

    return make_fx(
        adapter,
        decomposition_table={aten._convolution.default: convolution, aten._convolution.deprecated: convolution},
        tracing_mode="symbolic" if symbolic else "real",
        _allow_non_fake_inputs=True,
    )(*example)


def _export_torchscript(module: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> onnx_ir.Model:
    torch = import_torch()
    import onnx
    import onnx_ir

    buffer = io.BytesIO()
    names = [item.name for item in (*inputs, *outputs)]
    axes = {item.name: {axis: d for axis, d in enumerate(item.shape) if isinstance(d, str)} for item in (*inputs, *outputs)}
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            _example(torch, inputs),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=names[: len(inputs)],
            output_names=names[len(inputs) :],
            dynamic_axes={name: found for name, found in axes.items() if found},
        )
    return onnx_ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def _reason(error: BaseException) -> str:
    """The first cause: torch.onnx wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
