"""What holds in the store between any two calls, checked over the raw keys of every namespace and partition.

Usable after any test of any suite: ``await check_invariants(raw)``.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as aioredis

import declared
from hookline.keys import partition_of, partition_tag

EPOCH_MS = 1_704_067_200_000
"""2024-01-01, where the scores of the line begin."""
BAND = 9 * 10**14
PLACES = 1000
"""Places in line within one millisecond."""

_FAMILIES = rb"i|s|k|n|cfg|x|o|once|r|due|builds|outbox|turns|held|ready"
_NAME = re.compile(rb"(hl:\{([a-z0-9_-]+)/(\d+)[.\d]*\}):(" + _FAMILIES + rb")(?::(.*))?", re.DOTALL)
_META = re.compile(rb"hl:([a-z0-9_-]+):meta")
_SHARED = re.compile(rb"hl:(?:namespaces|api-keys(?::of:[a-z0-9_-]+)?|secret-mark|api-key:[0-9a-f]{12})")
"""What stands beside the namespaces; the records of API keys that were revoked run out."""
_TOKEN = re.compile(r"(\d+)\.[0-9a-f]{16}-\d+")
_WAITING = ("not_started", "scheduled")


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the store: what it holds, and how long it still lives (-1: for ever)."""

    value: Any
    ttl_ms: int


_READ_ALL = """
local found, cursor = {}, '0'
repeat
    local page = redis.call('SCAN', cursor, 'COUNT', 1000)
    cursor = page[1]
    for _, name in ipairs(page[2]) do
        local kind, value = redis.call('TYPE', name).ok, false
        if kind == 'hash' then value = redis.call('HGETALL', name)
        elseif kind == 'zset' then value = redis.call('ZRANGE', name, 0, -1, 'WITHSCORES')
        elseif kind == 'set' then value = redis.call('SMEMBERS', name)
        elseif kind == 'stream' then value = redis.call('XRANGE', name, '-', '+')
        elseif kind == 'list' then value = redis.call('LRANGE', name, 0, -1)
        elseif kind == 'string' then value = redis.call('GET', name) end
        table.insert(found, {name, kind, redis.call('PTTL', name), value})
    end
until cursor == '0'
return found
"""
"""One call for all: a client that asks for each key by itself took most of the time of a test with many items."""


async def read_keyspace(raw: aioredis.Redis) -> dict[bytes, Entry]:
    """Every key of the store: hash -> dict, sorted set -> {member: score}, set, string -> bytes, stream -> entries."""
    client: Any = raw  # tests ask a cluster like a single server
    nodes = client.get_primaries() if isinstance(client, aioredis.RedisCluster) else [client]
    answers = await asyncio.gather(*(node.execute_command("EVAL", _READ_ALL, 0) for node in nodes))
    return {name: Entry(_value(kind, value), ttl_ms) for found in answers for name, kind, ttl_ms, value in found}


def _value(kind: bytes, value: Any) -> Any:
    match kind:
        case b"hash":
            return _pairs(value)
        case b"zset":
            return {member: float(score) for member, score in _pairs(value).items()}
        case b"set":
            return set(value)
        case b"stream":
            return [(name, _pairs(fields)) for name, fields in value]
    return value


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def read_facts(raw: aioredis.Redis) -> dict[bytes, Any]:
    """What every key holds, but for the outcomes of calls, the records of answers and the counts of keys."""
    return {
        name: entry.value
        for name, entry in (await read_keyspace(raw)).items()
        if not any(family in name for family in (b"}:o:", b"}:once:", b"}:n:"))
    }


@dataclass(slots=True)
class Partition:
    """The keys of one partition, by family; items by (key, sortField), status sets by (key, status)."""

    tag: str
    namespace: str
    number: int
    items: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    statuses: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    sort_fields: dict[str, dict[str, float]] = field(default_factory=dict)
    registry: set[tuple[str, str, bool]] = field(default_factory=set)
    due: dict[str, float] = field(default_factory=dict)
    settings: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    declared: defaultdict[str, dict[str, dict[bytes, float]]] = field(default_factory=lambda: defaultdict(dict))
    builds: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    bells: dict[str, Any] = field(default_factory=dict)

    def put(self, family: str, name: str, value: Any) -> None:
        """Take in one key of this partition."""
        key, _, rest = name.partition(":")
        match family:
            case "i":
                self.items[key, rest] = {name.decode(): stored for name, stored in value.items()}
            case "s":
                self.statuses[key, rest] = {member.decode(): score for member, score in value.items()}
            case "k":
                self.sort_fields[key] = {member.decode(): score for member, score in value.items()}
            case "r":
                self.registry |= {(*_split(member), bool(name)) for member in value}
            case "cfg":
                self.settings[key] = value
            case "x":
                self.declared[key][rest] = value
            case "builds":
                for member in value:
                    key, rest = _split(member)
                    self.builds[key].add(rest)
            case "ready":
                self.bells[name] = value
            case "due":
                self.due = {key.decode(): score for key, score in value.items()}


def _split(member: bytes) -> tuple[str, str]:
    key, _, status = member.decode().partition("\0")
    return key, status


async def check_invariants(raw: aioredis.Redis) -> None:
    """Fail, naming every violation, unless items and indexes of the whole store fit together."""
    check_keyspace(await read_keyspace(raw))


def check_keyspace(keyspace: dict[bytes, Entry]) -> None:
    """The same of a store that was read already.

    Each item is in the set of its status and in no other, with the right score, and among the sortFields of its
    key; no index names an item that is not there, and the declared ones hold just what they must; the registry lists
    just the sets that there are, and what becomes
    due is noted; a token belongs to a claim; a bell to a key that has items; no key has an unknown name, and just
    the outcomes of calls (``o:``), the answers under idempotency keys (``once:``), the notes of what a worker with a
    bound holds (``held:``) and the counts of a key (``n:``) run out, and lists of turns once they were asked for.
    """
    partitions: dict[str, Partition] = {}
    sizes: dict[str, int] = {}
    flaws: list[str] = []
    for name, entry in keyspace.items():
        meta, match = _META.fullmatch(name), _NAME.fullmatch(name)
        if meta:
            sizes[meta[1].decode()] = int(entry.value[b"partitions"])
        elif match:
            tag, family = match[1].decode(), match[4].decode()
            partition = partitions.setdefault(tag, Partition(tag, match[2].decode(), int(match[3])))
            partition.put(family, (match[5] or b"").decode(), entry.value)
        elif entry.ttl_ms < 0 and not _SHARED.fullmatch(name):
            flaws.append(f"{name!r}: of no known family, and it never runs out")
        runs_out = match is not None and match[4] in (b"o", b"once", b"held", b"n")
        may_run_out = match is not None and match[4] == b"turns"
        if (match or meta) and not may_run_out and runs_out != (entry.ttl_ms >= 0):
            flaws.append(f"{name!r}: lives for {entry.ttl_ms} ms")
    for partition in partitions.values():
        flaws += [f"{partition.tag} {flaw}" for flaw in _flaws(partition, sizes.get(partition.namespace, 1))]
    assert not flaws, "\n".join(flaws)


def _flaws(partition: Partition, partitions: int) -> Iterator[str]:
    if partition.tag != partition_tag(partition.namespace, partition.number, partitions):
        yield f"is no partition of {partition.namespace}, which has {partitions}"
    found: defaultdict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for (key, status), members in partition.statuses.items():
        for sort_field, score in members.items():
            found[key, sort_field].append((status, score))
    for (key, sort_field), fields in partition.items.items():
        where = f"{key}/{sort_field}:"
        if partition_of(key, sort_field, partitions) != partition.number:
            yield f"{where} belongs into another partition"
        if partition.sort_fields.get(key, {}).get(sort_field) != 0:
            yield f"{where} is not among the sortFields of its key with score 0"
        yield from (f"{where} {flaw}" for flaw in _item_flaws(fields, found.pop((key, sort_field), [])))
    for (key, sort_field), places in found.items():
        yield f"{key}/{sort_field}: is in {places} but not there"
    for key, members in partition.sort_fields.items():
        yield from (f"{key}/{name}: is listed but not there" for name in members if (key, name) not in partition.items)
    indexes = {*partition.statuses, *((key, "") for key in partition.sort_fields)}
    listed = {(key, status, key.startswith("hookline.")) for key, status in indexes}
    for wrong in listed ^ partition.registry:
        yield f"{wrong}: is {'not in the registry' if wrong in listed else 'in the registry and empty'}"
    for (key, status), members in partition.statuses.items():
        if status == "scheduled" and partition.due.get(key, math.inf) > min(members.values()):
            yield f"{key}: is not noted to be due at {min(members.values())}"
    for key, bell in partition.bells.items():
        if bell != {b"": 0} or key not in partition.sort_fields:
            yield f"{key}: its bell is {bell}, with {len(partition.sort_fields.get(key, ()))} items"
    for key in {*partition.settings, *partition.declared, *partition.builds}:
        items = {name: fields for (of, name), fields in partition.items.items() if of == key}
        sets, builds = partition.declared.get(key, {}), partition.builds.get(key, set())
        yield from declared.flaws(key, partition.settings.get(key, {}), sets, builds, items)


def _item_flaws(fields: dict[str, bytes], places: list[tuple[str, float]]) -> Iterator[str]:
    """What is wrong with one item that stands in these (status, score)."""
    absent = {"v", "c", "ca", "ua"} - fields.keys()
    if absent:
        yield f"lacks {sorted(absent)}"
        return
    status, version = fields.get("s", b"").decode(), int(fields["v"])
    if [place for place, _ in places] != ([status] if status else []):
        yield f"has status {status!r} and is in the sets of {places}"
    elif status and not _is_right(fields, status, places[0][1]):
        yield f"{status} has score {places[0][1]:.0f}: {fields}"
    token = _TOKEN.fullmatch(fields.get("tk", b"").decode())
    if (status == "started") != bool(token):
        yield f"{status or 'no status'} with token {fields.get('tk')!r}"
    elif token and int(token[1]) > version:
        yield f"version {version} is older than its token {token[0]}"
    if "lu" in fields and status != "started":
        yield f"{status or 'no status'} with a lock"
    if status in _WAITING and not {"w", "sa"}.isdisjoint(fields):
        yield f"{status} with a worker"
    if version < 1:
        yield f"version {version}"


def _is_right(fields: dict[str, bytes], status: str, score: float) -> bool:
    if status == "not_started":
        time = max(0, min(BAND - PLACES, (int(fields["at"]) - EPOCH_MS) * 1000))
        first = (9 - int(fields.get("p", 5))) * BAND + time
        return first <= score < first + PLACES
    bound = {"scheduled": "at", "started": "lu"}.get(status, "ua")
    return score == int(fields.get(bound, 0))
