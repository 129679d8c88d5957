"""The networks of the zoo: every one is built, with real or seeded random weights, and opened as an edgekit source.

One module per collection. Each gives `entries()`, which imports no framework; `Entry.build` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Feeds
from edgekit.sources import Source


@dataclass(frozen=True)
class Built:
    """A network that is there.

    Args:
        source: It, as edgekit opens it.
        feeds: On which artifacts are compared with it.
        save: Writes what its framework's own converter reads (convert_worker.py) into a folder; None where there is no such
            converter.
    """

    source: Source
    feeds: Feeds
    save: Callable[[Path], None] | None = None


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
