"""What several tests of the compiler share."""

from __future__ import annotations

import pytest

from edgekit.litert import head_projections


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projects heads of any size in front, so that small networks show what becomes of large ones."""
    monkeypatch.setattr(head_projections, "COLUMNS", 1)
    monkeypatch.setattr(head_projections, "MULTIPLICATIONS", 0)
