"""Python's garbage collector, out of the way of work that makes many objects and drops few."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Collect no cycles in this block (or in a function decorated with it).

    A graph under conversion is hundreds of thousands of objects that all stay: the collector walks them again and again and frees
    nothing, a third of the time of a large graph, more where tensorflow or torch are loaded. Weights are not in cycles: what is
    dropped is freed at once all the same.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
