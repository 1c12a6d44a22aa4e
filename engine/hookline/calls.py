"""Makes the call of each verb from its arguments, which are checked here. No store."""

from __future__ import annotations

import random
import secrets as nonces
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from hookline import codec
from hookline.arguments import SettingsArguments
from hookline.call import Call
from hookline.codec import Change
from hookline.errors import Flaw, Invalid, ReservedKey
from hookline.item import NOT_STARTED, RESERVED_PREFIX, STARTED, TERMINAL, check_key, check_sort_field
from hookline.keys import item_name, partition_of, partition_tag
from hookline.keysettings import encode_backoff
from hookline.secret import SecretBox
from hookline.sortfield import TRIED_MAX, Spread, new_sort_field
from hookline.trigger import read_triggers
from hookline.where import compile_where

CLAIM_MAX = 500
"""Items of one claim, and operations of one request; the engine splits them over calls of the scripts."""
QUERY_MAX = 1000
GIVEN_MAX = 100
"""Items that one script call gives to claims."""
TRIGGER_MODES = ("key", "on", "off")


class Unset:
    """The type of :data:`UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


_NULL = codec.pack(None)
_NEW = (None, NOT_STARTED)
_OTHER_WAYS = frozenset({"t", "w", "lu", "sa", "da", "sd"})
"""Fields with which a new item needs more than to be written."""

UNSET = Unset()
"""Stands for an argument that was not given, where None means null."""


def check_limit(limit: object, most: int) -> None:
    """Refuse what is no number of items.

    Raises:
        Invalid: it is no whole number, or out of bounds.
    """
    if type(limit) is not int or not 1 <= limit <= most:
        raise Invalid.at("/limit", f"expected a whole number from 1 to {most}")


def given_settings(arguments: SettingsArguments) -> dict[str, object]:
    """The settings of a key that are to be changed.

    Raises:
        TypeError: there is no such setting.
    """
    if unknown := arguments.keys() - SettingsArguments.__annotations__.keys():
        raise TypeError(f"a key has no setting {min(unknown)}")
    return {name: value for name, value in arguments.items() if value is not UNSET}


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes the calls of one namespace. Every method checks its arguments and raises Invalid with all flaws."""

    namespace: str
    partitions: int
    secrets: SecretBox
    spread: Spread

    def create(
        self,
        key: str,
        sort_field: str | None = None,
        *,
        content: object = None,
        metadata: object = None,
        trigger_urls: object = None,
        partition: int | None = None,
        upsert: bool = False,
        version: int | None = None,
        match: int | None = None,
        triggers: bool = True,
        reserved: bool = False,
    ) -> Call:
        """Create an item; with ``upsert`` replace the one that exists, whole.

        Without a sortField it gets one that is unique and time-ordered, and that lies in the ``partition``, if one is
        named; else in one that has room.

        Raises:
            Invalid: an argument has the wrong form; every bad field is named.
            ReservedKey: the key begins with ``hookline.``.
        """
        generated, elsewhere = sort_field is None, None
        check_key(key)
        if sort_field is None:
            if partition is None:
                partition, elsewhere = self.spread.next(self.partitions), min(self.partitions, TRIED_MAX) - 1
            sort_field = new_sort_field(key, partition, self.partitions)
        else:
            check_sort_field(sort_field)
        _refuse_reserved(key, reserved)
        change = self._change(key, sort_field, content, metadata, trigger_urls)
        if not upsert:
            for name, given in (("version", version), ("match", match)):
                if given is not None:
                    raise Invalid.at(f"/{name}", "expected upsert as well: nothing that is there is created")
            if change.version not in (None, 1):
                raise Invalid.at("/metadata/version", "expected 1, or no version: a new item has version 1")
            change.version = None
        if not upsert and change.values.get("a", "0") != "0":
            raise Invalid.at("/metadata/attempts", "expected 0, or no attempts: a new item has none")
        if change.values.get("s") == "scheduled" and "sd" not in change.values:
            raise Invalid.at("/metadata/scheduled_at", "expected a time, since status is scheduled")
        if _is_plain(change) and not (upsert or match or version):
            request = _plain(change, triggers)
        else:
            request = self._change_request(change, version, match, triggers)
            request.pop("unset", None)  # nothing is there to be removed
            if upsert:
                request |= {"upsert": True, "replace": True}
        script = "create_drain" if reserved else "create"
        return self._call(script, key, sort_field, request, generated=generated, elsewhere=elsewhere)

    def elsewhere(self, call: Call) -> Call:
        """The create, by another name, in another partition: its own is full."""
        partition = (call.partition + max(1, self.partitions // TRIED_MAX)) % self.partitions
        sort_field = new_sort_field(call.key, partition, self.partitions)
        request = {**call.request, "sort": sort_field}
        if sealed := request.get("set", {}).get("t"):
            before, now = (codec.identity(self.namespace, call.key, name) for name in (call.sort_field, sort_field))
            triggers = read_triggers(codec.open_triggers(sealed, self.secrets, before))
            request["set"] = {**request["set"], "t": codec.encode_triggers(triggers, self.secrets, now)}
        changes: dict[str, Any] = {"partition": partition, "sort_field": sort_field, "request": request}
        return msgspec.structs.replace(call, **changes, elsewhere=(call.elsewhere or 0) - 1)

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
    ) -> Call:
        """Merge metadata (null removes), replace content and triggers; ``status: started`` claims.

        ``only_if`` are filters that the item's current metadata must meet, as in a query.

        Raises:
            Invalid: an argument has the wrong form; every bad field is named.
            ReservedKey: the key begins with ``hookline.``.
        """
        self._writable(key, sort_field, reserved)
        change = self._change(key, sort_field, content, metadata, trigger_urls)
        request = self._change_request(change, version, match, triggers) | _condition(only_if)
        if token is not None:
            request["token"] = check_token(token)
        drains = reserved or change.values.get("s") == STARTED or change.values.get("s") in TERMINAL
        return self._call("patch_drain" if drains else "patch", key, sort_field, request)

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
    ) -> Call:
        """Delete an item; with ``only_if`` just if its current metadata meets these filters.

        Raises:
            Invalid: an argument has the wrong form.
            ReservedKey: the key begins with ``hookline.``.
        """
        self._writable(key, sort_field, reserved)
        request = {"triggers": "on" if triggers else "off", "expect": version, "match": match, "token": token}
        return self._call("delete", key, sort_field, present(request) | _condition(only_if))

    def claim(
        self,
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        lock_for: object = None,
        where: object = None,
        triggers: str = "key",
        partition: int = 0,
        after: list[bytes] | None = None,
        in_flight: int | None = None,
        ballot: str | None = None,
        front: bool = False,
        reserved: bool = False,
    ) -> Call:
        """Claim up to ``limit`` items on one partition; ``after`` is where a claim of the same filters ended early.

        One of the ``front`` does a tenth of the work of a call at most.
        ``in_flight`` and ``ballot``: what a :class:`hookline.bound.Bound` leaves to this partition.

        Raises:
            Invalid: an argument has the wrong form.
            ReservedKey: the key begins with ``hookline.``.
        """
        check_key(key)
        _refuse_reserved(key, reserved)
        check_limit(limit, GIVEN_MAX)
        if triggers not in TRIGGER_MODES:
            raise Invalid.at("/triggers", f"expected one of {', '.join(TRIGGER_MODES)}")
        lock_ms = codec.encode_duration(lock_for, "/lockFor")
        if lock_ms == 0:
            raise Invalid.at("/lockFor", "expected a duration above 0")
        compiled = compile_where(where)
        request = {
            "verb": "claim",
            "key": key,
            "worker": codec.encode_native("worker_id", "word", worker_id, "/workerId"),
            "limit": limit,
            "after": after,
            "lock_ms": lock_ms,
            "where": list(compiled.conditions),
            "triggers": triggers,
            "in_flight": in_flight,
            "ballot": ballot,
            "front": front or None,
            "nonce": nonces.token_hex(8),
        }
        return Call("claim", partition, key, "", present(request), compiled)

    def complete(
        self,
        key: str,
        sort_field: str,
        token: str,
        *,
        metadata: object = None,
        triggers: str = "key",
        reserved: bool = False,
    ) -> Call:
        """End a claim: ``completed``, with metadata merged.

        Raises:
            Invalid: an argument has the wrong form, or metadata names what the engine sets.
        """
        return self._settle("complete", key, sort_field, token, triggers, reserved, self._results(metadata), {})

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
    ) -> Call:
        """Report a failed attempt: back in line after a backoff, or ``failed`` when attempts are used up.

        The backoff is the key's, or ``backoff`` in the same forms, or exactly ``retry_after``.

        Raises:
            Invalid: an argument has the wrong form, or metadata names what the engine sets.
        """
        message = "failed" if error is None else codec.encode_native("last_error", "text", error, "/error")
        more = {"error": message, "jitter": random.uniform(0.8, 1.2)}  # noqa: S311 - spreads retries, guards nothing
        more["delay_ms"] = codec.encode_duration(retry_after, "/retryAfter")
        more["backoff"] = None if backoff is None else encode_backoff(backoff, "/backoff")
        return self._settle("fail", key, sort_field, token, triggers, reserved, self._results(metadata), more)

    def release(
        self,
        key: str,
        sort_field: str,
        token: str,
        *,
        delay: object = None,
        triggers: str = "key",
        reserved: bool = False,
    ) -> Call:
        """Give a claim back, uncounted.

        Raises:
            Invalid: an argument has the wrong form.
        """
        more = {"delay_ms": codec.encode_duration(delay, "/delay")}
        return self._settle("release", key, sort_field, token, triggers, reserved, Change(), more)

    def extend(self, key: str, sort_field: str, token: str, *, lock_for: object = None, reserved: bool = False) -> Call:
        """Prolong a claim from now on by ``lock_for``, or by the key's default lock.

        Raises:
            Invalid: an argument has the wrong form.
        """
        more = {"lock_ms": codec.encode_duration(lock_for, "/lockFor")}
        return self._settle("extend", key, sort_field, token, "key", reserved, Change(), more)

    def partition(self, key: str, sort_field: str) -> int:
        """The partition that an item is in."""
        return partition_of(key, sort_field, self.partitions)

    def name(self, key: str, sort_field: str) -> tuple[str, str]:
        """Key and sortField of an item to be read.

        Raises:
            Invalid: one has the wrong form.
        """
        return check_key(key), check_sort_field(sort_field)

    def item_name(self, key: str, sort_field: str) -> str:
        """The name of an item in the store, which its changes are told by."""
        tag = partition_tag(self.namespace, self.partition(key, sort_field), self.partitions)
        return item_name(tag, key, sort_field)

    def _settle(
        self,
        verb: str,
        key: str,
        sort_field: str,
        token: str,
        triggers: str,
        reserved: bool,
        change: Change,
        more: dict[str, Any],
    ) -> Call:
        self._writable(key, sort_field, reserved)
        if triggers not in TRIGGER_MODES:
            raise Invalid.at("/triggers", f"expected one of {', '.join(TRIGGER_MODES)}")
        request = {"verb": verb, "set": change.values, "token": check_token(token), "triggers": triggers}
        if change.unset or change.stamped or more:
            request |= present({"unset": change.unset or None, "now": change.stamped or None, **more})
        return self._call("settle", key, sort_field, request)

    def _results(self, metadata: object) -> Change:
        change = codec.encode_metadata(metadata)
        fields = [*change.values, *change.unset, *change.stamped] if change.unset or change.stamped else change.values
        if change.version is not None or not _SETTLE_OWNS.isdisjoint(fields):
            owned = [codec.NAMES[field] for field in fields if field in _SETTLE_OWNS]
            owned += ["version"] if change.version is not None else []
            raise Invalid(*(Flaw(f"/metadata/{name}", "set by the engine when a claim ends") for name in owned))
        return change

    def _call(self, script: str, key: str, sort_field: str, request: dict[str, Any], **more: Any) -> Call:
        request["key"], request["sort"] = key, sort_field
        return Call(script, self.partition(key, sort_field), key, sort_field, request, **more)

    def _writable(self, key: str, sort_field: str, reserved: bool) -> None:
        check_key(key)
        check_sort_field(sort_field)
        _refuse_reserved(key, reserved)

    def _change(self, key: str, sort_field: str, content: object, metadata: object, trigger_urls: object) -> Change:
        flaws: list[Flaw] = []
        change = Change()
        try:
            change = codec.encode_metadata(metadata)
        except Invalid as invalid:
            flaws.extend(invalid.flaws)
        try:
            if content is not UNSET:
                change.values["c"] = codec.encode_content(content)
        except Invalid as invalid:
            flaws.extend(invalid.flaws)
        try:
            if trigger_urls is not UNSET and trigger_urls is not None:
                owner = codec.identity(self.namespace, key, sort_field)
                change.values["t"] = codec.encode_triggers(read_triggers(trigger_urls), self.secrets, owner)
            elif trigger_urls is None:
                change.unset.append("t")
        except Invalid as invalid:
            flaws.extend(invalid.flaws)
        if flaws:
            raise Invalid(*flaws)
        return change

    def _change_request(
        self,
        change: Change,
        version: int | None,
        match: int | None,
        triggers: bool,
    ) -> dict[str, Any]:
        if version is not None and change.version not in (None, version):
            raise Invalid.at("/version", "expected the same version as metadata.version, or one of the two alone")
        return present(
            {
                "set": change.values,
                "unset": change.unset or None,
                "now": change.stamped or None,
                "expect": version if version is not None else change.version,
                "match": match,
                "triggers": "on" if triggers else "off",
                "nonce": nonces.token_hex(8) if change.values.get("s") == STARTED else None,
            }
        )


_SETTLE_OWNS = frozenset(
    codec.NATIVE[name][0]
    for name in (
        "status",
        "worker_id",
        "started_at",
        "locked_until",
        "attempts",
        "scheduled_at",
        "last_error",
        "crashed_attempts",
        "failed_attempts",
        "released_attempts",
    )
)


def check_token(token: object) -> str:
    """A claim's token, if it has the form of one.

    Raises:
        Invalid: it has not.
    """
    if isinstance(token, str) and 0 < len(token) <= 128 and token.isascii():
        return token
    raise Invalid.at("/token", "expected the token that the claim returned")


def _condition(only_if: object) -> dict[str, Any]:
    conditions = compile_where(only_if, "/if").conditions
    return {"only_if": list(conditions)} if conditions else {}


def _refuse_reserved(key: str, reserved: bool) -> None:
    if key.startswith(RESERVED_PREFIX) and not reserved:
        raise ReservedKey


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _is_plain(change: Change) -> bool:
    """Whether a new item may be created the short way, as lua/hookline_lua/lib/plain.lua says."""
    values = change.values
    return values.get("s") in _NEW and _OTHER_WAYS.isdisjoint(values) and not change.stamped


def _plain(change: Change, triggers: bool) -> dict[str, Any]:
    """What that way takes: all fields of the item, and its priority if it stands in line."""
    values = change.values
    request: dict[str, Any] = {"triggers": "on" if triggers else "off"}
    values.setdefault("c", _NULL)
    if "s" in values:
        values.setdefault("a", "0")
        request["line"] = values.get("p", "5")
    request["new"] = values
    return request
