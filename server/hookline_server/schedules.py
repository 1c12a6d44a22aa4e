"""Schedules as a server reads and runs them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hookline import rule, schedules
from hookline.item import NOT_STARTED
from hookline.rule import LOCAL_TICK, NAME, TICK
from hookline_server.fields import CatchUp, Content, Duration, Key, Metadata, TriggerUrls
from hookline_server.rules import Running


class Schedule(rule.Schedule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: create this item at each tick.

    ``catch_up`` says what becomes of ticks that were missed by more than a minute: ``skip`` creates nothing for them,
    ``one`` an item for the last of them, ``all`` one for each, up to 1,000.
    """

    key: Key
    sort_field: Annotated[
        str,
        Meta(description=f"Of the items: `{TICK}` or `{LOCAL_TICK}` is in it, so that each tick has one of its own."),
    ] = f"{NAME}-{TICK}"
    content: Content = None
    metadata: Metadata = msgspec.field(default_factory=lambda: {"status": NOT_STARTED})
    trigger_urls: TriggerUrls = None
    catch_up: CatchUp = "one"
    every: Duration | None = None
    jitter: Duration = 0


class Schedules(Running[rule.Schedule, schedules.Created], schedules.Schedules):
    """Keeps and runs schedules."""

    kind = Schedule
