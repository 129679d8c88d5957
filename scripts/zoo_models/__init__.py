"""The networks of the zoo: every one is built, with real or seeded random weights, and opened as an edgekit source.

One module per collection. Each gives `entries()`, which imports no framework; `Entry.build` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.contract import Feeds
from edgekit.sources import Source

Built = tuple[Source, Feeds]
"""A source, and the feeds on which artifacts are compared with it."""


@dataclass(frozen=True)
class Entry:
    """One network.

    Args:
        name: `collection/network`.
        build: Builds it. Raises whatever the framework raises.
    """

    name: str
    build: Callable[[], Built]

    @property
    def collection(self) -> str:
        return self.name.partition("/")[0]


def entries() -> list[Entry]:
    """All of them, the collections that break first at the top."""
    from zoo_models import keras_networks, onnx_packages, timm_families, torchvision_networks, transformer_configs

    collections = (onnx_packages, transformer_configs, torchvision_networks, timm_families, keras_networks)
    return [entry for collection in collections for entry in collection.entries()]
