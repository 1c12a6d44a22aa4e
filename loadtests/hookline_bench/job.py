"""The jobs that are measured with, and what a way to the store must be able to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

BODY: dict[str, Any] = {
    "key": "jobs",
    "content": {"report_type": "monthly", "department": "sales", "rows": [1, 2, 3]},
    "metadata": {"status": "not_started", "type": "report_generation", "created_at": "2024-03-15T09:00:00Z"},
}
"""A create as a client may send it."""
CONTENT = "x" * 200
"""The payload of every measured job: 200 bytes."""
METADATA: dict[str, Any] = BODY["metadata"]
PAGE = 20
"""Items of one query."""

Held = tuple[str, str]
"""The sortField and the token of a claim."""


class Way(Protocol):
    """A way to do things with jobs: straight to the store, over HTTP, or bare commands without any logic."""

    async def create(self, key: str, names: Sequence[str]) -> int:
        """Create jobs in one call -> how many there are now."""

    async def claim(self, key: str, limit: int) -> list[Held]:
        """Claim jobs."""

    async def exchange(self, key: str, done: Sequence[Held], failed: Sequence[Held], limit: int) -> list[Held]:
        """Settle what is held, and claim more if the limit is not 0 -> the claims.

        Raises:
            RuntimeError: something was not settled.
        """

    async def get(self, key: str, name: str) -> None:
        """Read one."""

    async def update(self, key: str, name: str) -> None:
        """Change a field of one."""

    async def query(self, key: str, kind: str) -> int:
        """A page of those of a type -> how many."""
