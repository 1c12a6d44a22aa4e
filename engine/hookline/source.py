"""Where a worker's jobs come from: what it needs of a :class:`Datastore` or a :class:`Client`."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import iscoroutinefunction
from typing import Any, Protocol, Unpack

from hookline.arguments import ClaimArguments, ExchangeArguments
from hookline.errors import Invalid
from hookline.outcome import Claimed, Outcome
from hookline.registry import Presence


class Source(Protocol):
    """The verbs that a worker calls."""

    @property
    def calls(self) -> Any:
        """Makes the operations."""

    async def claim(
        self, key: str, *, worker_id: str, limit: int = 1, wait: float = 0, **options: Unpack[ClaimArguments]
    ) -> Claimed:
        """Claim, and wait for something to claim."""

    async def exchange(
        self, calls: Sequence[Any], key: str, *, worker_id: str, limit: int = 1, **options: Unpack[ExchangeArguments]
    ) -> tuple[list[Outcome], Claimed]:
        """Settle and claim."""

    async def settle(self, calls: Sequence[Any]) -> list[Outcome]:
        """Settle."""

    async def run(self, calls: Sequence[Any]) -> list[Outcome]:
        """Update."""

    async def heartbeat(self, presence: Presence) -> str | None:
        """Be listed, and learn what is asked of us."""

    async def leave(self, presence: Presence) -> None:
        """Be listed no more."""


def check_source(source: object) -> None:
    """Refuse what jobs cannot come from.

    Raises:
        Invalid: it has no verbs, or such as block, as a :class:`SyncClient` has.
    """
    if not iscoroutinefunction(getattr(source, "claim", None)):
        raise Invalid.at("/source", f"expected a Datastore or a Client, not {type(source).__name__}")
