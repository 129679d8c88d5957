"""PyTorch files: exported programs (`.pt2`) and TorchScript archives are models; pickles and state dicts are not.

`torch.save` pickles, and unpickling runs whatever the file says. So nothing here is unpickled without
`weights_only=True` unless the user trusts the file. TorchScript's reader builds no Python objects; its programs are limited to
TorchScript, which can still read and write files: an archive whose code does so is refused like a pickle.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSpec
from edgekit.errors import InputError, SourceError, UntrustedSource
from edgekit.sources.digest import digest_path
from edgekit.sources.quiet import quiet
from edgekit.sources.shapes import Declared
from edgekit.sources.source import Source, first_line
from edgekit.sources.torch_model import forward_parameters, import_torch, torch_source

USE_FACTORY = "write file.py with a function that builds the module and loads these weights, and give file.py:function"


ARITHMETIC = frozenset(
    "Abs Add CeilDiv CleanDiv Eq FloorDiv IntTrueDiv Integer Max Min Mod ModularIndexing Mul Ne Pow PythonMod Rational Symbol "
    "ToFloat TruncToInt Where ceiling floor".split()
)
"""The functions that a symbolic size of an exported program may call."""


def open_torch_file(
    spec: str,
    path: Path,
    submodule: str | None,
    *,
    inputs: Sequence[TensorSpec],
    dynamic: Sequence[str],
    trust: bool,
) -> Source:
    """Open what a `.pt2`, `.pt`, `.pth` or `.jit` file turns out to hold; the suffix says little.

    Args:
        submodule: The part of a TorchScript module to open instead of the whole (`encoder`, `model.head`).

    Raises:
        SourceError: It holds tensors without an architecture, is damaged, or keeps state from call to call.
        UntrustedSource: It holds pickled Python objects, and `trust` is False.
    """
    if path.suffix.lower() == ".safetensors":
        raise SourceError("the file holds weights without an architecture", where=spec, fix=USE_FACTORY)
    entries = _entries(path, spec)
    if submodule is not None and "constants.pkl" not in entries:
        raise SourceError("only a TorchScript archive has parts that can be opened alone", where=spec, fix=f"give {path}")
    if "constants.pkl" in entries:
        return _open_torchscript(spec, path, submodule, inputs, dynamic, trust)
    if any(name.startswith("models/") or name.startswith("serialized_exported_program") for name in entries):
        return _open_exported(spec, path, inputs, dynamic, trust)
    return _open_pickle(spec, path, inputs, dynamic, trust)


def _entries(path: Path, spec: str) -> dict[str, str]:
    """The archive's entries, by their names below its one top folder; empty for a pickle of old."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(2)
        if start[:1] != b"\x80":  # the opcode that every binary pickle begins with
            raise SourceError("the file is no PyTorch file, or is cut off", where=spec, fix="copy it or save it again")
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2] or name: name for name in archive.namelist()}


def _open_torchscript(
    spec: str, path: Path, submodule: str | None, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool
) -> Source:
    torch = import_torch()
    if not trust:
        _refuse_file_access(path, spec)
    try:
        with quiet():
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # RuntimeError from C++, ValueError, UnicodeDecodeError …
        raise SourceError(
            f"PyTorch cannot read the archive: {first_line(error)}", where=spec, fix="copy it or save it again"
        ) from error
    if submodule:
        module = _part(module, submodule, spec)
    if not hasattr(module, "forward"):
        raise SourceError("the TorchScript module has no forward()", where=spec, fix="open one of its parts: MODEL.pt:part")
    if module.inlined_graph.findAllNodes("prim::SetAttr"):
        parts = ", ".join(name for name, child in module.named_children() if hasattr(child, "forward"))
        raise SourceError(
            "the module's forward() keeps state from one call to the next",
            where=spec,
            fix=f"open a part that takes its state as an input, {path}:PART (it has: {parts}), or wrap it in file.py:factory",
        )
    declared = _script_inputs(module, inputs, spec)
    return torch_source(module, spec, digest_path(path), declared, inputs=inputs, dynamic=dynamic, call=module, scripted=True)


def _refuse_file_access(path: Path, spec: str) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                found = re.search(rb"torch\.(save|from_file|load)\(", archive.read(name))
                if found:
                    raise UntrustedSource(
                        f"the archive's code calls {found[0].decode()}…), which reads or writes files",
                        where=f"{spec}, {name}",
                        fix="if you know who made it, pass --trust-source",
                    )


def _part(module: Any, submodule: str, spec: str) -> Any:
    part = module
    for name in submodule.split("."):
        children = dict(part.named_children())
        if name not in children:
            raise SourceError(
                f"the module has no part {name!r}", where=spec, fix=f"its parts are: {', '.join(children) or 'none'}"
            )
        part = children[name]
    return part.eval()


def _script_inputs(module: Any, inputs: Sequence[TensorSpec], spec: str) -> list[Declared]:
    """The tensor arguments of `forward`: those that it must have, and optional ones that `inputs` names."""
    given = {item.name for item in inputs}
    declared = []
    for argument in module.forward.schema.arguments[1:]:
        kind = str(argument.type)
        needed = not argument.has_default_value()
        if kind not in ("Tensor", "Optional[Tensor]"):
            if needed:
                raise SourceError(
                    f"forward() takes {argument.name}: {kind}, which is not a tensor",
                    where=spec,
                    fix="wrap the module in file.py:factory with a forward() that takes tensors alone",
                )
            break
        if not needed and argument.name not in given:
            break  # arguments are given by position: what comes after an omitted one keeps its default as well
        declared.append(Declared(argument.name, None))
    return declared


def _open_exported(spec: str, path: Path, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool) -> Source:
    torch = import_torch()
    if not trust:
        _refuse_pickles(torch, path, spec)
    try:
        with quiet():
            # Registers the operators that a program trained with quantization (pt2e) is written in; PyTorch does so only here.
            importlib.import_module("torch.ao.quantization.fx._decomposed")
            program = torch.export.load(str(path))
    except Exception as error:
        raise SourceError(
            f"PyTorch {torch.__version__} cannot read the exported program: {first_line(error)}",
            where=spec,
            fix="export it again with this version of PyTorch",
        ) from error
    names = list(program.graph_signature.user_inputs)
    if not all(isinstance(name, str) for name in names):
        raise SourceError(
            "the program takes inputs that are not tensors", where=spec, fix="export a module that takes tensors alone"
        )
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    declared = [_exported_input(name, values[name], spec) for name in names]
    with quiet():
        module = program.module()

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.utils._pytree.tree_unflatten(list(tensors), program.call_spec.in_spec)
        return module(*args, **kwargs)

    return torch_source(module, spec, digest_path(path), declared, inputs=inputs, dynamic=dynamic, call=call, free=False)


def _refuse_pickles(torch: Any, path: Path, spec: str) -> None:
    """`torch.export.load` unpickles what it finds marked so. Look at it first, with the reader that runs nothing."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json") and '"use_pickle": true' in archive.read(name).decode(errors="replace"):
                reason = "holds pickled objects"
            elif name.endswith(".pt") and (data := archive.read(name)):
                try:
                    torch.load(io.BytesIO(data), weights_only=True)
                    continue
                except Exception as error:  # whatever is wrong with it, the unrestricted reader would be tried next
                    reason = f"holds more than tensors: {first_line(error)}"
            elif name.endswith("model.json") and (expression := _strange_expression(archive.read(name))):
                reason = f"has the expression {expression!r} for a size"
            else:
                continue
            raise UntrustedSource(
                f"the exported program {reason}",
                where=f"{spec}, {name}",
                fix="export it from tensors alone, or pass --trust-source if you know who made it",
            )


def _strange_expression(data: bytes) -> str | None:
    """The first symbolic size that is more than arithmetic: `torch.export` evaluates them as Python by way of sympy."""

    def strange(text: str) -> bool:
        calls = re.findall(r"(\w+)\s*\(", text)
        return not re.fullmatch(r"[\w\s+\-*/(),<>=&|~.'\[\]]*", text) or "__" in text or bool(set(calls) - ARITHMETIC)

    def find(node: Any) -> str | None:
        if isinstance(node, dict):
            text = node.get("expr_str")
            if isinstance(text, str) and strange(text):
                return text
            return next((found for child in node.values() if (found := find(child))), None)
        if isinstance(node, list):
            return next((found for child in node if (found := find(child))), None)
        return None

    try:
        return find(json.loads(data))
    except ValueError:
        return None  # torch.export.load says what is wrong with it


def _exported_input(name: str, value: Any, spec: str) -> Declared:
    if value is None or not hasattr(value, "shape"):
        raise SourceError(
            f"the program's input {name!r} is not a tensor", where=spec, fix="export a module that takes tensors alone"
        )
    shape = tuple(d if isinstance(d, int) else str(d) for d in value.shape)
    return Declared(name, shape, str(value.dtype).removeprefix("torch."))


def _open_pickle(spec: str, path: Path, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool) -> Source:
    torch = import_torch()
    try:
        with quiet():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise UntrustedSource(
                "the file is a pickle of Python objects: reading it runs code that it carries",
                where=spec,
                fix="better save the module with torch.export.save or torch.jit.save; or pass --trust-source if you know who "
                "made the file",
            ) from error
        content = _unpickle(torch, path, spec)
    except Exception as error:
        raise SourceError(
            f"PyTorch cannot read the file: {first_line(error)}", where=spec, fix="copy it or save it again"
        ) from error
    if isinstance(content, torch.nn.Module):
        module = content.eval().float()
        wanted = {item.name for item in inputs}
        names = [n for n, p in forward_parameters(module).items() if p.default is p.empty or n in wanted]
        if not names:
            raise InputError("forward() has no named parameters", where=spec, fix=USE_FACTORY)
        declared = [Declared(name, None) for name in names]
        return torch_source(module, spec, digest_path(path), declared, inputs=inputs, dynamic=dynamic)
    raise SourceError(
        f"the file holds weights without an architecture ({_contents(torch, content)})", where=spec, fix=USE_FACTORY
    )


def _unpickle(torch: Any, path: Path, spec: str) -> Any:
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can raise anything; most often its classes cannot be imported
        raise SourceError(
            f"the pickle cannot be read: {first_line(error)}",
            where=spec,
            fix="install or put on PYTHONPATH the code that defines its classes",
        ) from error


def _contents(torch: Any, content: Any) -> str:
    if isinstance(content, dict):
        tensors = sum(isinstance(value, torch.Tensor) for value in content.values())
        return f"{tensors} tensors" if tensors == len(content) else f"a dict with {', '.join(map(str, list(content)[:5]))}"
    return f"a {type(content).__name__}"
