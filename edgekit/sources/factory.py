"""Models that a function of the user's builds: `path/to/file.py:factory` or `package.module:factory`.

The user names the code, so running it is what was asked for. The function takes no arguments and returns an `nn.Module`, or
`(module, example_inputs)` with a tensor, a tuple or a dict by parameter name (numpy arrays will do), or a Keras model.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.contract import TensorSpec
from edgekit.errors import EdgekitError, InputError, SourceError
from edgekit.sources.digest import digest_state
from edgekit.sources.shapes import Declared
from edgekit.sources.source import Source, first_line


def open_factory(spec: str, code: str, attribute: str, *, inputs: Sequence[TensorSpec], dynamic: Sequence[str]) -> Source:
    """Call `attribute` of the file or module `code` and open what it returns.

    Raises:
        SourceError: The code is missing or fails, or the function returns something else.
        InputError: A shape is neither in the example inputs nor in `inputs`.
    """
    with _importable(code):
        module = _import_code(code, spec)
        made = _call(module, attribute, spec)
    text = Path(module.__file__).read_bytes() if getattr(module, "__file__", None) else b""  # type: ignore[arg-type]
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if any(base.__module__.startswith("keras.") for base in type(model).__mro__):
        from edgekit.sources.keras_model import keras_source

        state = {f"{index}": np.asarray(weight) for index, weight in enumerate(model.get_weights())}
        return keras_source(model, spec, digest_state(text, state), inputs=inputs, dynamic=dynamic)
    return _open_module(spec, model, example, text, inputs, dynamic)


@contextlib.contextmanager
def _importable(code: str) -> Iterator[None]:
    """Let the code import what lies beside it (a module: what lies in the working directory), and leave no __pycache__."""
    folder = str(Path(code).resolve().parent if code.endswith(".py") else Path.cwd())
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        if folder in sys.path:
            sys.path.remove(folder)


def _import_code(code: str, spec: str) -> ModuleType:
    try:
        if not code.endswith(".py"):
            return importlib.import_module(code)
        path = Path(code)
        if not path.is_file():
            raise SourceError("there is no such file", where=code, fix="check the path before the colon")
        name = f"_edgekit_factory_{path.stem}"
        found = importlib.util.spec_from_file_location(name, path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module  # dataclasses and pickle look a class's module up there
        found.loader.exec_module(module)
        return module
    except EdgekitError:
        raise
    except ModuleNotFoundError as error:
        raise SourceError(f"cannot import {error.name}", where=spec, fix="install it, or put it on PYTHONPATH") from error
    except Exception as error:  # the user's code may raise anything
        raise SourceError(f"the code fails when imported: {_told(error)}", where=spec, fix="run it with Python alone") from error


def _call(module: ModuleType, attribute: str, spec: str) -> Any:
    try:
        factory = module
        for name in attribute.split("."):
            factory = getattr(factory, name)
    except AttributeError:
        names = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
        raise SourceError(
            f"there is no {attribute!r} in {module.__file__}", where=spec, fix=f"its functions are: {', '.join(names) or 'none'}"
        ) from None
    if not callable(factory) or _is_model(factory):
        return factory
    try:
        return factory()
    except EdgekitError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise SourceError(
            f"the factory fails: {_told(error)}", where=spec, fix="it is called without arguments and must return the model"
        ) from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _is_model(value: Any) -> bool:
    """Whether it is a model already; models can be called too. Classes are factories."""
    return not isinstance(value, type) and any(
        base.__module__.startswith(("torch.nn.modules.module", "keras.")) for base in type(value).__mro__
    )


def _open_module(
    spec: str, module: Any, example: Any, text: bytes, inputs: Sequence[TensorSpec], dynamic: Sequence[str]
) -> Source:
    from edgekit.sources.torch_model import import_torch, numpy_state, torch_source

    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"the factory returns {type(module).__name__}, not a model",
            where=spec,
            fix="return an nn.Module, (nn.Module, example inputs), or a Keras model",
        )
    scripted = isinstance(module, torch.jit.ScriptModule)
    module = module.cpu().eval()
    if not scripted:
        module = module.float()
    sha256 = digest_state(text, numpy_state(module))
    declared, call = _declare(torch, module, example, inputs, spec)
    return torch_source(module, spec, sha256, declared, inputs=inputs, dynamic=dynamic, call=call, scripted=scripted)


def _declare(torch: Any, module: Any, example: Any, inputs: Sequence[TensorSpec], spec: str) -> tuple[list[Declared], Any]:
    """The module's inputs: what the example gives, and beyond it what `inputs` names or forward() cannot do without."""
    examples = _named_examples(torch, module, example, spec)
    needed, known, by_name = _parameters(torch, module, len(examples))
    given = {item.name for item in inputs}
    strange = [name for name in (*examples, *given) if known and name not in known]
    if strange:
        raise InputError(f"forward() has no parameter {strange[0]!r}", where=spec, fix=f"its parameters are: {', '.join(known)}")
    # Without an example, a parameter counts where the user or forward() itself asks for it.
    names = [n for n in known or examples if n in examples or n in given or (n in needed and not examples)]
    names = names or [item.name for item in inputs]
    if not names:
        raise InputError(
            "the factory gives no example inputs, and forward() does not name its parameters",
            where=spec,
            fix="return (module, example_inputs), or pass --input for each input in order",
        )
    return [examples.get(name) or Declared(name, None) for name in names], None if by_name else module


def _parameters(torch: Any, module: Any, count: int) -> tuple[list[str], list[str], bool]:
    """Names that forward() must be given, all that it takes, and whether it takes them by keyword."""
    from edgekit.sources.torch_model import forward_parameters

    if isinstance(module, torch.jit.ScriptModule):
        arguments = module.forward.schema.arguments[1:]
        return [a.name for a in arguments if not a.has_default_value()], [a.name for a in arguments], False
    parameters = forward_parameters(module)
    if count > len(parameters):  # forward(*tensors)
        return [], [], False
    return [name for name, p in parameters.items() if p.default is p.empty], list(parameters), True


def _named_examples(torch: Any, module: Any, example: Any, spec: str) -> dict[str, Declared]:
    if example is None:
        return {}
    if not isinstance(example, Mapping):
        values = example if isinstance(example, tuple | list) else (example,)
        _, known, _ = _parameters(torch, module, len(values))
        names = known or [f"input_{index}" for index in range(len(values))]
        example = dict(zip(names, values, strict=False))
    return {name: _example(name, value, spec) for name, value in example.items() if value is not None}


def _example(name: str, value: Any, spec: str) -> Declared:
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise SourceError(
            f"the example for {name!r} is {type(value).__name__}, not a tensor",
            where=spec,
            fix="wrap the module so that forward() takes tensors alone",
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype in ("float16", "bfloat16", "float64"):  # the module is run in float32
        dtype = "float32"
    return Declared(name, tuple(int(d) for d in value.shape), dtype)
