"""What several tests of the compiler share."""

from __future__ import annotations

import pytest

from edgekit.litert import head_projections


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of 32 are projected in front however little there is to multiply: small networks show what becomes of large ones."""
    monkeypatch.setattr(head_projections, "MULTIPLICATIONS", 0)
