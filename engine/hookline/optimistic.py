"""Changes that go by what is stored: it is read, and written if it is still so."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hookline.errors import PreconditionFailed

TRIES = 8
"""How often such a change is tried while others get in between."""
T = TypeVar("T")


async def try_again(change: Callable[[], Awaitable[T]]) -> T:
    """What ``change`` gives, which reads and writes; anew each time that another write got in between.

    Raises:
        PreconditionFailed: one did every time.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(PreconditionFailed):
            return await change()
    return await change()
