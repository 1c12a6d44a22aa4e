"""The arguments by name of the verbs that make, change and claim items: the same for whoever has these verbs."""

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


class ClaimArguments(TypedDict, total=False):
    """Those of ``claim`` and ``exchange``, beside how many and how long. Over HTTP none is ``reserved``."""

    lock_for: object
    where: object
    triggers: str
    max_in_flight: int | None
    reserved: bool
