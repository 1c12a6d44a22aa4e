"""Python's collector of garbage, in processes that handle many small things for a long time."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Collect less often, and not what is there already: 5 to 10 % of a request's time (loadtests)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
