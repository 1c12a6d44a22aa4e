"""The arguments by name of the verbs that are the same for a datastore and both clients."""

from __future__ import annotations

from typing import TypedDict


class DeleteArguments(TypedDict, total=False):
    """Those of ``delete``."""

    version: int | None
    match: int | None
    token: str | None
    only_if: object
    triggers: bool
    reserved: bool


class UpdateArguments(DeleteArguments, total=False):
    """Those of ``update``."""

    content: object
    metadata: object
    trigger_urls: object


class CreateArguments(TypedDict, total=False):
    """Those of ``create``."""

    content: object
    metadata: object
    trigger_urls: object
    upsert: bool
    version: int | None
    match: int | None
    triggers: bool
    reserved: bool


class ExchangeArguments(TypedDict, total=False):
    """Those of ``exchange``, beside how many. Over HTTP none is ``reserved``."""

    lock_for: object
    where: object
    triggers: str
    reserved: bool


class ClaimArguments(ExchangeArguments, total=False):
    """Those of ``claim``, beside how many and how long: no exchange has a bound."""

    max_in_flight: int | None


class SettingsArguments(TypedDict, total=False):
    """Those of ``configure``, as :meth:`Datastore.configure` tells them."""

    max_attempts: object
    lock_for: object
    backoff: object
    paused: object
    max_length: object
    indexes: object
    retention: object
    record_deliveries: object
    trigger_urls: object
