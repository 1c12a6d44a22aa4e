"""How rules read, and their runs: types for the API's document, as in ``shapes``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from hookline_server.fields import CatchUp, Content, Duration, Filters, Key, Metadata, Time
from hookline_server.shapes import Count, Shape, Trigger, Version


class Run(Shape):
    """What came of one run."""

    by: Annotated[Literal["tick", "hand"], Meta(description="Whether it was due, or somebody asked for it.")]
    tick: Annotated[Time | None, Meta(description="When it was due; null by hand.")]
    started_at: Time
    ended_at: Time
    skipped: Annotated[Count, Meta(description="Ticks that were missed, and are not made up for.")] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    abandoned: (
        Annotated[bool, Meta(description="It was interrupted, and gone on with too late to know what it had done.")]
        | UnsetType
    ) = UNSET
    claimed: Count | UnsetType = UNSET
    expired_locks: (
        Annotated[Count, Meta(description="Of those claimed, taken over from a lock that had expired.")] | UnsetType
    ) = UNSET
    lost_races: Annotated[Count, Meta(description="Items that another claim took first.")] | UnsetType = UNSET
    dead_lettered: Annotated[Count, Meta(description="Items found out of attempts.")] | UnsetType = UNSET
    refilled: Annotated[Count, Meta(description="Claimed since the tick before, when slots got free.")] | UnsetType = (
        UNSET
    )
    created: Count | UnsetType = UNSET
    existed: Annotated[Count, Meta(description="Items that were there already.")] | UnsetType = UNSET


class Runs(Shape):
    """A page of runs, the last ones first."""

    items: list[Run]
    cursor: str | None


class Tick(Shape):
    """A moment at which a rule is due."""

    at: Time
    local: Annotated[str, Meta(description="The same by the clock of the rule's time zone.")]


class NextRuns(Shape):
    """When a rule runs next; nothing if it runs by hand alone."""

    ticks: list[Tick]


class StoredRule(Shape, kw_only=True):
    """A stored rule, and when it runs."""

    name: str
    every: Duration | None
    cron: str | None
    time_zone: str
    jitter: Duration
    enabled: bool
    next_run: Time | None
    last_run: Run | None
    version: Version
    updated_at: Time


class StoredOrchestration(StoredRule, kw_only=True):
    """A stored orchestration, and when it runs."""

    key: Key
    where: Filters
    limit: int
    lock_for: Duration
    max_in_flight: int | None


class Orchestrations(Shape):
    """A page of orchestrations, in order of name."""

    items: list[StoredOrchestration]
    cursor: str | None


class StoredSchedule(StoredRule, kw_only=True):
    """A stored schedule, and when it runs."""

    key: Key
    sort_field: Annotated[str, Meta(description="With places for the tick.")]
    content: Content
    metadata: Metadata
    trigger_urls: list[Trigger]
    catch_up: CatchUp


class Schedules(Shape):
    """A page of schedules, in order of name."""

    items: list[StoredSchedule]
    cursor: str | None
