"""Operations on items as values that go over HTTP: :class:`Calls` for who has a server, not a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hookline.bound import check_max_in_flight
from hookline.calls import CLAIM_MAX, UNSET, Calls, check_limit, present
from hookline.errors import Invalid
from hookline.keys import PARTITIONS_MAX
from hookline.secret import SecretBox
from hookline.sortfield import Spread

SETTLES = ("complete", "fail", "release", "extend")
"""The verbs of ``/settle``; all others are of ``items:batch``."""
_CHECK = Calls("client", PARTITIONS_MAX, SecretBox(bytes(32)), Spread())
"""Makes calls that are thrown away: what is malformed is told before anything is sent, in the words of the engine.

The names of new items are theirs. How many partitions the server has is not known here: what lies together in one of
the most does so in one of fewer as well, if that is a power of two.
"""


def check_claim(key: str, *, limit: int, max_in_flight: object = None, where: object = None, **options: Any) -> None:
    """Refuse a claim that is malformed, as a datastore does.

    Raises:
        Invalid, ReservedKey
    """
    check_limit(limit, CLAIM_MAX)
    if max_in_flight is not None:
        check_max_in_flight(max_in_flight)
    _CHECK.claim(key, where=where, **options)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``body`` is as ``items:batch`` or ``/settle`` read it; ``match`` is what If-Match asks for."""

    verb: str
    key: str
    sort_field: str
    body: dict[str, Any] = field(repr=False)
    triggers: bool = True
    match: int | None = None

    @property
    def settles(self) -> bool:
        """Whether it ends or prolongs a claim."""
        return self.verb in SETTLES


class Operations:
    """Makes operations, with the arguments of :class:`Calls`. Every method raises Invalid with all flaws."""

    def create(
        self,
        key: str,
        sort_field: str | None = None,
        *,
        content: object = None,
        metadata: object = None,
        trigger_urls: object = None,
        upsert: bool = False,
        version: int | None = None,
        match: int | None = None,
        triggers: bool = True,
        reserved: bool = False,
    ) -> Operation:
        """Create an item; with ``upsert`` replace the one that exists, whole. Without a sortField it gets one.

        Raises:
            Invalid: an argument has the wrong form; every bad field is named.
            ReservedKey: the key begins with ``hookline.``.
        """
        given: dict[str, Any] = {"content": content, "metadata": metadata, "trigger_urls": trigger_urls}
        checked = _CHECK.create(key, sort_field, **given, upsert=upsert, version=version, match=match)
        _refuse(reserved=reserved)
        if version is not None:
            metadata = {**(metadata if isinstance(metadata, Mapping) else {}), "version": version}
        body = {"content": content, "metadata": metadata, "triggerUrls": trigger_urls, "upsert": upsert or None}
        return Operation("create", key, checked.sort_field, present(body), triggers, match)

    def update(
        self,
        key: str,
        sort_field: str,
        *,
        content: object = UNSET,
        metadata: object = None,
        trigger_urls: object = UNSET,
        version: int | None = None,
        match: int | None = None,
        token: str | None = None,
        only_if: object = None,
        triggers: bool = True,
        reserved: bool = False,
    ) -> Operation:
        """Merge metadata (null removes), replace content and triggers; ``status: started`` claims.

        Raises:
            Invalid: an argument has the wrong form; every bad field is named.
            ReservedKey: the key begins with ``hookline.``.
        """
        given: dict[str, Any] = {"content": content, "trigger_urls": trigger_urls}
        more: dict[str, Any] = {"metadata": metadata, "version": version, "token": token, "only_if": only_if}
        _CHECK.update(key, sort_field, **given, **more, match=match)
        _refuse(reserved=reserved)
        written = {"content": content, "triggerUrls": trigger_urls}
        body = {name: value for name, value in written.items() if value is not UNSET}
        body |= present({"metadata": metadata, "version": version, "token": token, "if": only_if})
        return Operation("update", key, sort_field, body, triggers, match)

    def delete(
        self,
        key: str,
        sort_field: str,
        *,
        version: int | None = None,
        match: int | None = None,
        token: str | None = None,
        only_if: object = None,
        triggers: bool = True,
        reserved: bool = False,
    ) -> Operation:
        """Delete an item; with ``only_if`` just if its current metadata meets these filters.

        Raises:
            Invalid: an argument has the wrong form.
            ReservedKey: the key begins with ``hookline.``.
        """
        _CHECK.delete(key, sort_field, version=version, match=match, token=token, only_if=only_if)
        _refuse(reserved=reserved)
        body = present({"version": version, "token": token, "if": only_if})
        return Operation("delete", key, sort_field, body, triggers, match)

    def complete(
        self,
        key: str,
        sort_field: str,
        token: str,
        *,
        metadata: object = None,
        triggers: str = "key",
        reserved: bool = False,
    ) -> Operation:
        """End a claim: ``completed``, with metadata merged.

        Raises:
            Invalid: an argument has the wrong form, or metadata names what the engine sets.
        """
        _CHECK.complete(key, sort_field, token, metadata=metadata)
        _refuse(reserved=reserved, triggers=triggers)
        return self._settle("complete", key, sort_field, {"token": token, "metadata": metadata})

    def fail(
        self,
        key: str,
        sort_field: str,
        token: str,
        *,
        error: str | None = None,
        retry_after: object = None,
        backoff: object = None,
        metadata: object = None,
        triggers: str = "key",
        reserved: bool = False,
    ) -> Operation:
        """Report a failed attempt: back in line after a backoff, or ``failed`` when attempts are used up.

        Raises:
            Invalid: an argument has the wrong form, or metadata names what the engine sets.
        """
        _CHECK.fail(key, sort_field, token, error=error, retry_after=retry_after, backoff=backoff, metadata=metadata)
        _refuse(reserved=reserved, triggers=triggers)
        body = {"token": token, "error": error, "retryAfter": retry_after, "backoff": backoff, "metadata": metadata}
        return self._settle("fail", key, sort_field, body)

    def release(
        self,
        key: str,
        sort_field: str,
        token: str,
        *,
        delay: object = None,
        triggers: str = "key",
        reserved: bool = False,
    ) -> Operation:
        """Give a claim back, uncounted.

        Raises:
            Invalid: an argument has the wrong form.
        """
        _CHECK.release(key, sort_field, token, delay=delay)
        _refuse(reserved=reserved, triggers=triggers)
        return self._settle("release", key, sort_field, {"token": token, "delay": delay})

    def extend(
        self, key: str, sort_field: str, token: str, *, lock_for: object = None, reserved: bool = False
    ) -> Operation:
        """Prolong a claim from now on by ``lock_for``, or by the key's default lock.

        Raises:
            Invalid: an argument has the wrong form.
        """
        _CHECK.extend(key, sort_field, token, lock_for=lock_for)
        _refuse(reserved=reserved)
        return self._settle("extend", key, sort_field, {"token": token, "lockFor": lock_for})

    def _settle(self, verb: str, key: str, sort_field: str, body: dict[str, Any]) -> Operation:
        return Operation(verb, key, sort_field, present({"sortField": sort_field, **body}))


def _refuse(*, reserved: bool, triggers: str = "key") -> None:
    if reserved:
        raise Invalid.at("/key", "keys that begin with 'hookline.' are not written over HTTP by these verbs")
    if triggers != "key":
        raise Invalid.at("/triggers", "over HTTP what ends a claim calls the triggers of the key alone")
