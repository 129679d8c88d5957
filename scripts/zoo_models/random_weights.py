"""Random weights under which every parameter of a PyTorch network shows in its output.

Networks start from weights that hide mistakes: biases and position tables of zero, norms of one, layer scales of 1e-6,
BatchNorms that do nothing. Here constant parameters are drawn at random, and each BatchNorm is given statistics near those of
what it sees, so that values do not explode over fifty layers. Its bias is positive: where a rectifier cuts half of what it gets,
a random network multiplies every rounding error by 1.2 and more in each layer, which no trained network does.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.sources.shapes import Declared
from edgekit.sources.torch_model import torch_source
from zoo_models import Built

SEED = 20


def torch_built(name: str, module: Any, feeds: Mapping[str, np.ndarray]) -> Built:
    """A module with such weights, opened as a source. `feeds` are its inputs by parameter name of `forward`, in order."""
    module = module.float().eval()
    randomize(module, feeds)
    declared = [Declared(key, array.shape, str(array.dtype)) for key, array in feeds.items()]
    source = torch_source(module, name, "", declared, inputs=(), dynamic=())
    return Built(source, dict(feeds), lambda folder: save_program(module, feeds, folder / "model.pt2"))


def save_program(module: Any, feeds: Mapping[str, np.ndarray], path: Path) -> None:
    """The module as an exported program, which takes the feeds in their order and gives its results as a tuple."""
    import torch

    names = list(feeds)

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            results = self.module(**dict(zip(names, tensors, strict=True)))
            return tuple(leaf for leaf in torch.utils._pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor))

    with torch.no_grad():
        example = tuple(torch.from_numpy(array) for array in feeds.values())
        torch.export.save(torch.export.export(Program().eval(), example), path)


def randomize(module: Any, feeds: Mapping[str, np.ndarray]) -> None:
    """Draw the constant parameters of a module anew, and its BatchNorm statistics from one run on `feeds`."""
    import torch

    torch.manual_seed(SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel():
                _vary(torch, parameter)
        kinds = torch.nn.modules.batchnorm._BatchNorm
        norms = [part for part in module.modules() if isinstance(part, kinds) and part.running_var is not None]
        for norm in norms:
            if norm.bias is not None:
                norm.bias.uniform_(0.5, 1.5)
        hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
        module(**{key: torch.from_numpy(array) for key, array in feeds.items()})
        for hook in hooks:
            hook.remove()


def image(*shape: int) -> np.ndarray:
    """Seeded noise of standard deviation 1, as normalized photographs have."""
    return np.random.default_rng(SEED).standard_normal(shape, np.float32)


def tokens(*shape: int, vocabulary: int = 96) -> np.ndarray:
    """Seeded token ids that are neither padding nor any other special token."""
    return np.random.default_rng(SEED).integers(5, vocabulary, shape, np.int64)


def mask(batch: int, length: int, padded: int = 0) -> np.ndarray:
    """An attention mask of which the last `padded` places are off."""
    array = np.ones((batch, length), np.int64)
    array[:, length - padded :] = 0
    return array


def allow_torchvision() -> None:
    """Declare the operators that torchvision's Python code registers kernels for, where its own library does not load.

    torchvision's wheels are built against another PyTorch than the one from the package index; no network of the zoo calls them.
    """
    import torch

    found = importlib.util.find_spec("torchvision")
    assert found is not None, "torchvision is not installed"
    assert found.submodule_search_locations, "torchvision is not a package"
    text = Path(found.submodule_search_locations[0], "_meta_registrations.py").read_text()
    for name in sorted(set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', text))):
        signature = "(Tensor a, Tensor b, float c) -> Tensor" if name.endswith("nms") else "(Tensor a) -> Tensor"
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", signature)


def _vary(torch: Any, parameter: Any) -> None:
    value = float(parameter.flatten()[0])
    if not bool((parameter == value).all()):
        return
    if value == 0:  # biases, residual gates
        drawn = torch.randn_like(parameter) * 0.05 if parameter.numel() > 1 else torch.full_like(parameter, 0.5)
    elif abs(value) < 0.1:  # layer scales
        drawn = torch.empty_like(parameter).uniform_(0.05, 0.2)
    else:
        drawn = value * torch.empty_like(parameter).uniform_(0.8, 1.25)
    parameter.copy_(drawn)


def _measure(norm: Any, arguments: Sequence[Any]) -> None:
    import torch

    seen = arguments[0]
    axes = [axis for axis in range(seen.ndim) if axis != 1]
    mean, power = seen.mean(axes), seen.square().mean(axes)
    spread = power.clamp_min(0.5 * power.mean() + 1e-6)  # more than the variance, which a map of few positions hardly has
    norm.running_mean.copy_(mean * torch.empty_like(mean).uniform_(0.8, 1.2))
    norm.running_var.copy_(spread * torch.empty_like(spread).uniform_(0.7, 1.4))
