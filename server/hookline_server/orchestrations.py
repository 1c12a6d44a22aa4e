"""Orchestrations as a server reads and runs them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from hookline import Claimed, Datastore, orchestrations, rule
from hookline.errors import NotFound
from hookline_server.fields import Duration, Filters, InFlight, Key
from hookline_server.rules import Running

ORCHESTRATIONS = orchestrations.ORCHESTRATIONS
_COUNTED = 10_000
"""Orchestrations of which a server counts what it claims between the ticks; of more, the oldest count is forgotten.

Those that have gone, and those that another server runs by now, are not told apart from those that will run here.
"""


class Orchestration(rule.Orchestration, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: claim up to ``limit`` items of ``key`` that match ``where``, so that their workers are called.

    With ``max_in_flight``, so many of those that it claimed are kept started at once, and no more.
    """

    key: Key
    where: Filters = {}  # noqa: RUF012 - msgspec copies it
    lock_for: Duration = "10m"
    max_in_flight: InFlight | None = None
    every: Duration | None = None
    jitter: Duration = 0


class Orchestrations(Running[rule.Orchestration, Claimed], orchestrations.Orchestrations):
    """Keeps and runs orchestrations."""

    kind = Orchestration
    repeatable = False

    def __init__(self, datastore: Datastore, ran: Callable[[str, rule.Orchestration], None] | None = None) -> None:
        super().__init__(datastore, ran)
        self._refilled: Counter[tuple[str, str]] = Counter()

    async def refill(self, name: str, rule: rule.Orchestration) -> Claimed:
        """Claim between the ticks; the next one that this server runs tells how much.

        Raises:
            HooklineError
        """
        claimed = await orchestrations.claim(self._datastore, name, rule)
        if claimed.items:
            self._refilled[name, rule.key] += len(claimed.items)
            if len(self._refilled) > _COUNTED:
                del self._refilled[next(iter(self._refilled))]
        return claimed

    async def mine(self, name: str) -> rule.Orchestration | None:
        """The rule, if it has slots to fill, and this server is the last that ran it.

        Raises:
            Unavailable, Corrupt
        """
        with contextlib.suppress(NotFound):
            item = await self.get(name)
            rule = self.rule(item)
            if rule.max_in_flight and rule.enabled and rule.recurrence and item.metadata.get("ran_by") == self.server:
                return rule
        return None

    def since(self, name: str, rule: rule.Orchestration) -> dict[str, Any]:
        """What was claimed since the last tick that this server ran."""
        refilled = self._refilled.pop((name, rule.key), 0)
        return {"refilled": refilled} if refilled else {}
