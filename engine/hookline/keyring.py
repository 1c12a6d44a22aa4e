"""API keys: who may ask a server for what. The store has an HMAC of each, never the key itself.

A key reads ``hl_<id>_<secret><checksum>``: the id finds its record, the checksum tells a mistyped one without asking
the store. To the record, a hash, fields are added, and only of secrets that have ended taken away: two rotations at
once are both good, and neither brings back what was revoked meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline import keys
from hookline.clock import format_time
from hookline.connection import Connection
from hookline.errors import Flaw, Incompatible, Invalid, StoreFull, UnknownApiKey
from hookline.grant import Grant, read_grant
from hookline.item import check_namespace
from hookline.secret import SecretBox

PREFIX = "hl_"
NAME_MAX = 128
KEYS_MAX = 10_000
"""API keys of a store, those of all namespaces together; revoked ones count as long as they are listed."""
NAMESPACE_KEYS_MAX = 1000
"""API keys of one namespace, so that it neither fills the store's nor is slow to list."""
SECRETS_MAX = 16
"""Secrets of one key that are good at once: each is read with it."""
GRACE = 86_400
"""Seconds for which the secret before a rotation is good, where nothing is said of it."""
REVOKED_FOR = 30 * 86_400
"""Seconds for which a revoked key is still listed, where there is room."""
_AT_ONCE = 50
"""Keys that are read together, or forgotten: more would hold up the store and the loop."""

_KEY = re.compile(r"hl_([0-9a-f]{12})_[0-9a-f]{64}([0-9a-f]{8})", re.ASCII)
_MADE = "-"
"""What one member of the set of ids begins with, which is no id and is never removed. As long as the set has members
servers ask for a key: they must not be open again once the last key was revoked. Its rest tells under which pepper the
keys were made."""
_MAC = "mac:"
_SAME = "name the data directory of the servers with --data, or give this process their HOOKLINE_SECRET_KEY"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One API key, without its secret. Times are ms since 1970.

    ``used_ms`` is about when it was last used; ``ends_ms`` when the last of its secrets ends, if it does.
    """

    id: str
    name: str
    namespace: str
    grant: Grant
    created_ms: int
    used_ms: int | None = None
    revoked_ms: int | None = None
    ends_ms: int | None = None
    macs: Mapping[str, int | None] = field(default_factory=dict, repr=False)
    """The HMAC of each of its secrets -> when that ends."""

    def to_dict(self) -> dict[str, Any]:
        """As it reads over HTTP."""
        times = {"created": self.created_ms, "used": self.used_ms, "ends": self.ends_ms, "revoked": self.revoked_ms}
        return {
            "id": self.id,
            "name": self.name,
            "namespace": self.namespace,
            "scopes": self.grant.scopes,
            "patterns": self.grant.patterns,
            **{f"{name}At": None if ms is None else format_time(ms) for name, ms in times.items()},
        }


class Keyring:
    """The API keys of a store, of all its namespaces. Servers that share them need the same secret key."""

    def __init__(self, connection: Connection, box: SecretBox) -> None:
        self._connection = connection
        self._pepper = box.derive("api-keys")
        self._mark = _MADE + self._mac("mark")[:16]

    async def check(self, *, claim: bool = False) -> None:
        """Make sure that the store's servers have this secret; where no one's is noted yet, ``claim`` notes this one.

        Raises:
            Incompatible: they have another, so nothing that they have sealed opens here, nor the other way round.
            Unavailable
        """
        await self.any_made()
        name, mark = keys.secret_mark(), self._mark.removeprefix(_MADE).encode()
        if claim:
            # At the memory limit servers start all the same, to drain it.
            with contextlib.suppress(StoreFull):
                await self._connection.command_on(name, "SET", name, mark, "NX")
        noted = await self._connection.command_on(name, "GET", name)
        if noted not in (None, mark):
            raise Incompatible(
                f"the servers of this store have another secret: {_SAME}; docs/security.md says what to do where that"
                " is lost"
            )

    async def create(
        self,
        namespace: str,
        *,
        name: str = "",
        scopes: object = ("read", "write", "work"),
        patterns: object = (),
        lasts: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key -> what is stored of it, and the key itself, which nobody can be told again.

        ``lasts`` is after how many seconds it ends by itself.

        Raises:
            Invalid: an argument has the wrong form, or there are as many keys as there may be.
            Incompatible, Unavailable
        """
        grant = _checked(namespace, name, scopes, patterns)
        lasts_ms = _lifetime(lasts)
        await self.check(claim=True)
        await self._make_room(namespace)
        now_ms = await self._connection.now_ms()
        key_id = secrets.token_hex(6)
        text = _make_text(key_id)
        ends_ms = None if lasts_ms is None else now_ms + lasts_ms
        key = ApiKey(key_id, name, namespace, grant, now_ms, ends_ms=ends_ms)
        fields = {
            "name": name,
            "namespace": namespace,
            "scopes": ",".join(grant.scopes),
            "patterns": ",".join(grant.patterns),
            "created": now_ms,
            f"{_MAC}{self._mac(text)}": ends_ms or "",
        }
        # Listed last, for who lists meanwhile takes an id without a key for one that has gone, and drops it. What is
        # cut off between these is a key that nobody has been told.
        await self._set(key_id, fields)
        await self._connection.command_on(keys.api_keys(), "SADD", keys.api_keys(), self._mark, key_id)
        await self._connection.command_on(keys.api_keys_of(namespace), "SADD", keys.api_keys_of(namespace), key_id)
        return key, text

    async def _make_room(self, namespace: str) -> None:
        """Forget the oldest revoked keys of a namespace that has as many as it may have.

        Raises:
            Invalid: none is revoked, or the store has as many as it may have.
            Unavailable
        """
        most, name = NAMESPACE_KEYS_MAX, keys.api_keys_of(namespace)
        if await self._count(name) >= most and len(found := await self.all(namespace)) >= most:
            revoked = sorted((key.revoked_ms, key.id) for key in found if key.revoked_ms)
            if not revoked:
                raise Invalid.at("", f"expected at most {most} API keys of a namespace: revoke those that nobody uses")
            await self._forget([key_id for _, key_id in revoked[:_AT_ONCE]], namespace)
        if await self._is_full():
            raise Invalid.at("", f"expected at most {KEYS_MAX} API keys in the store: revoke some, those go at once")

    async def _is_full(self) -> bool:
        return await self._count(keys.api_keys()) > KEYS_MAX  # one is the mark

    async def _count(self, name: str) -> int:
        return int(await self._connection.command_on(name, "SCARD", name))

    async def _forget(self, key_ids: Sequence[str], namespace: str | None) -> None:
        """Take keys away, those that have gone from the lists too. What is cut off between is an id without a key."""
        names = map(keys.api_key, key_ids)
        await asyncio.gather(*(self._connection.command_on(name, "DEL", name) for name in names))
        for lists in (keys.api_keys(), *([keys.api_keys_of(namespace)] if namespace else [])):
            await self._connection.command_on(lists, "SREM", lists, *key_ids)

    async def any_made(self) -> bool:
        """Whether there is an API key, or was one.

        Raises:
            Incompatible: they were made under another secret than that of this installation, so none can be good.
            Unavailable
        """
        if await self._connection.command_on(keys.api_keys(), "SISMEMBER", keys.api_keys(), self._mark):
            return True
        await self._ids()
        return False

    async def _ids(self) -> list[str]:
        members = await self._connection.command_on(keys.api_keys(), "SMEMBERS", keys.api_keys())
        names = {member.decode() for member in members}
        if names and self._mark not in names:
            raise Incompatible(f"the API keys in this store were made under another secret: {_SAME}")
        return sorted(names - {self._mark})

    async def _ids_of(self, namespace: str) -> list[str]:
        await self.any_made()
        name = keys.api_keys_of(namespace)
        return sorted(member.decode() for member in await self._connection.command_on(name, "SMEMBERS", name))

    async def all(self, namespace: str | None = None) -> list[ApiKey]:
        """Every key of the namespace, or of all, in the order in which they were made; revoked ones for a while too.

        Raises:
            Incompatible, Unavailable
        """
        ids = await (self._ids() if namespace is None else self._ids_of(namespace))
        found: list[ApiKey] = []
        for start in range(0, len(ids), _AT_ONCE):
            page = ids[start : start + _AT_ONCE]
            read = [key for key in await asyncio.gather(*map(self.get, page)) if key]
            if gone := [*set(page).difference(key.id for key in read)]:
                await self._forget(gone, namespace)
            found += read
        return sorted(found, key=lambda key: (key.created_ms, key.id))

    async def get(self, key_id: str) -> ApiKey | None:
        """What is stored of a key, revoked or not.

        Raises:
            Unavailable
        """
        name = keys.api_key(key_id)
        flat = await self._connection.command_on(name, "HGETALL", name)
        fields = {field.decode(): value.decode() for field, value in zip(flat[::2], flat[1::2], strict=True)}
        return _decode(key_id, fields) if "namespace" in fields else None

    async def verify(self, text: str) -> ApiKey | None:
        """The key that this is; None if there is none such, or not any more. ``ends_ms`` is that of this very secret.

        Raises:
            Unavailable
        """
        key_id = read_id(text)
        key = None if key_id is None else await self.get(key_id)
        if key is None or key.revoked_ms is not None:
            return None
        wanted = self._mac(text)
        for mac, ends_ms in key.macs.items():
            if hmac.compare_digest(mac, wanted):
                ended = ends_ms is not None and ends_ms <= time.time() * 1000
                return (
                    None
                    if ended
                    else ApiKey(
                        key.id, key.name, key.namespace, key.grant, key.created_ms, key.used_ms, ends_ms=ends_ms
                    )
                )
        return None

    async def rotate(self, key_id: str, *, grace: float = GRACE, lasts: float | None = None) -> str:
        """Give a key another secret -> the key as it reads now. The one before is good for ``grace`` seconds more.

        Raises:
            Invalid: the new one would have ended already, or as many as may be would stay good beside it.
            UnknownApiKey: there is none of this id, or it was revoked.
            Incompatible, Unavailable
        """
        lasts_ms = _lifetime(lasts)
        key = await self._known(key_id)
        now_ms = await self._connection.now_ms()
        text = _make_text(key_id)
        until = now_ms + round(grace * 1000)
        if until > now_ms and sum(ends is None or ends > now_ms for ends in key.macs.values()) >= SECRETS_MAX:
            raise Invalid.at("/grace", f"{SECRETS_MAX} secrets of this key are good: end them all with a grace of 0")
        ends_ms = None if lasts_ms is None else now_ms + lasts_ms
        fields: dict[str, object] = {
            f"{_MAC}{mac}": until for mac, ends in key.macs.items() if ends is None or ends > until
        }
        await self._set(key_id, fields | {f"{_MAC}{self._mac(text)}": ends_ms or ""})
        ended = [f"{_MAC}{mac}" for mac, ends in key.macs.items() if ends is not None and ends <= now_ms]
        if ended:
            await self._connection.command_on(keys.api_key(key_id), "HDEL", keys.api_key(key_id), *ended)
        return text

    async def revoke(self, key_id: str) -> None:
        """End a key with all its secrets. Where the store is full nothing is kept of it, not even that it ended.

        Full is one at its memory limit, and one with as many keys as it may have.

        Raises:
            UnknownApiKey: there is none of this id, or it was revoked.
            Incompatible, Unavailable
        """
        key = await self._known(key_id)
        if await self._is_full():
            await self._forget([key_id], key.namespace)
            return
        name = keys.api_key(key_id)
        try:
            await self._set(key_id, {"revoked": await self._connection.now_ms()})
        except StoreFull:
            await self._forget([key_id], key.namespace)
        else:
            await self._connection.command_on(name, "EXPIRE", name, REVOKED_FOR)

    async def note_use(self, key_id: str) -> None:
        """Note that the key is in use now, if it has not gone meanwhile.

        Raises:
            Unavailable
        """
        name = keys.api_key(key_id)
        if await self._connection.command_on(name, "EXISTS", name):
            await self._set(key_id, {"used": await self._connection.now_ms()})
            # Forgotten in between, it has been made anew by this, in no list and for ever.
            if not await self._connection.command_on(name, "HEXISTS", name, "namespace"):
                await self._connection.command_on(name, "DEL", name)

    async def _known(self, key_id: str) -> ApiKey:
        await self.any_made()
        key = await self.get(key_id)
        if key is None or key.revoked_ms is not None:
            raise UnknownApiKey
        return key

    async def _set(self, key_id: str, fields: Mapping[str, object]) -> None:
        name = keys.api_key(key_id)
        flat = [part for pair in fields.items() for part in pair]
        await self._connection.command_on(name, "HSET", name, *flat)

    def _mac(self, text: str) -> str:
        return hmac.digest(self._pepper, text.encode(), "sha256").hex()


def read_id(text: str) -> str | None:
    """The id within an API key; None if the text is none, or mistyped."""
    match = _KEY.fullmatch(text)
    return match[1] if match and _checksum(text[:-8]) == match[2] else None


def _make_text(key_id: str) -> str:
    text = f"{PREFIX}{key_id}_{secrets.token_hex(32)}"
    return text + _checksum(text)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _checked(namespace: object, name: object, scopes: object, patterns: object) -> Grant:
    flaws: list[Flaw] = []
    grant = Grant()
    try:
        check_namespace(namespace)
    except Invalid as invalid:
        flaws += invalid.flaws
    if not (isinstance(name, str) and len(name) <= NAME_MAX and (name.isprintable())):
        flaws.append(Flaw("/name", f"expected at most {NAME_MAX} printable characters"))
    try:
        grant = read_grant(scopes, patterns)
    except Invalid as invalid:
        flaws += invalid.flaws
    if flaws:
        raise Invalid(*flaws)
    return grant


def _lifetime(lasts: float | None) -> int | None:
    """Seconds as milliseconds, of which there must be one for a key to be good at all."""
    lasts_ms = None if lasts is None else round(lasts * 1000)
    if lasts_ms is not None and lasts_ms <= 0:
        raise Invalid.at("/lasts", "expected a duration above 0")
    return lasts_ms


def _decode(key_id: str, fields: Mapping[str, str]) -> ApiKey:
    macs = {name.removeprefix(_MAC): _time(ends) for name, ends in fields.items() if name.startswith(_MAC)}
    ends = [ends_ms for ends_ms in macs.values() if ends_ms is not None]
    return ApiKey(
        key_id,
        fields["name"],
        fields["namespace"],
        Grant(_words(fields["scopes"]), _words(fields["patterns"])),
        int(fields["created"]),
        _time(fields.get("used")),
        _time(fields.get("revoked")),
        max(ends) if len(ends) == len(macs) and ends else None,
        macs,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _time(text: str | None) -> int | None:
    return int(text) if text else None
