"""The store's own ceiling: the same reads and writes as the verbs do, in scripts without any logic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from hookline import Datastore
from hookline.keys import partition_tag
from hookline_bench.job import CONTENT, PAGE, Held

_NAMES = (
    "local p = KEYS[1] .. ':bare' local sets = { [1] = p .. ':k', [2] = p .. ':w', [3] = p .. ':s', [4] = p .. ':d' } "
)
_COMPLETE = """
if ARGV[from] then
  local d = {}
  for i = from, #ARGV do
    redis.call('HGETALL', p .. ':i:' .. ARGV[i])
    redis.call('HSET', p .. ':i:' .. ARGV[i], 'v', '3', 's', 'completed', 'ua', '1800000000002', 'da', '1800000000002')
    redis.call('HDEL', p .. ':i:' .. ARGV[i], 'lu', 'tk')
    d[#d + 1] = 1800000000002 d[#d + 1] = ARGV[i]
  end
  redis.call('ZREM', sets[3], unpack(ARGV, from))
  redis.call('ZADD', sets[4], unpack(d))
end
"""
_CLAIM = """
local names = redis.call('ZRANGE', sets[2], 0, limit - 1)
if #names == 0 then return { names } end
local s, items = {}, {}
for i, name in ipairs(names) do
  items[i] = redis.call('HGETALL', p .. ':i:' .. name)
  redis.call('HSET', p .. ':i:' .. name, 'v', '2', 's', 'started', 'ua', '1800000000001', 'a', '1', 'w', 'bench', 'sa',
    '1800000000001', 'lu', '1800000600001', 'tk', '2.0123456789abcdef')
  s[#s + 1] = 1800000600001 s[#s + 1] = name
end
redis.call('ZREM', sets[2], unpack(names))
redis.call('ZADD', sets[3], unpack(s))
return { names, items }
"""
SCRIPTS = {
    "create": _NAMES
    + """
local k, w = {}, {}
for i = 2, #ARGV do
  redis.call('HSET', p .. ':i:' .. ARGV[i], 'v', '1', 's', 'not_started', 'c', ARGV[1], 'ca', '1800000000000', 'ua',
    '1800000000000', 'a', '0', 'at', '1800000000000', 'm:type', 'report_generation', 'm:created_at',
    '2024-03-15T09:00:00Z')
  k[#k + 1] = 0 k[#k + 1] = ARGV[i] w[#w + 1] = i w[#w + 1] = ARGV[i]
end
redis.call('ZADD', sets[1], unpack(k))
redis.call('ZADD', sets[2], unpack(w))
""",
    "claim": _NAMES + "local limit = tonumber(ARGV[1])" + _CLAIM,
    "complete": _NAMES + "local from = 1" + _COMPLETE,
    "exchange": _NAMES + "local from, limit = 2, tonumber(ARGV[1])" + _COMPLETE + _CLAIM,
    "get": _NAMES + "return redis.call('HGETALL', p .. ':i:' .. ARGV[1])",
    "update": _NAMES
    + """
local name = p .. ':i:' .. ARGV[1]
redis.call('HGETALL', name)
redis.call('HSET', name, 'v', '2', 'ua', '1800000000002', 'm:progress', '50')
""",
    "query": _NAMES
    + """
local items = {}
for i, name in ipairs(redis.call('ZRANGE', sets[1], 0, ARGV[1] - 1)) do
  items[i] = redis.call('HGETALL', p .. ':i:' .. name)
end
return items
""",
}
"""All names fit, nothing is checked. KEYS[1] is what all names begin with; of ``create`` the first argument is the
content, of ``claim`` and ``exchange`` how many; the rest are names.
"""
_SHAS = {name: hashlib.sha1(source.encode()).hexdigest() for name, source in SCRIPTS.items()}


class Bare:
    """A :class:`Way` of bare scripts, over the same connections as the engine's."""

    def __init__(self, datastore: Datastore) -> None:
        self._command = datastore.connection.command
        self._tag = partition_tag(datastore.calls.namespace, 0, datastore.calls.partitions)

    async def load(self) -> None:
        """Let the store know the scripts."""
        for source in SCRIPTS.values():
            await self._command("SCRIPT", "LOAD", source)

    async def run(self, name: str, key: str, *args: object) -> Any:
        """One script."""
        return await self._command("EVALSHA", _SHAS[name], 1, f"{self._tag}:{key}", *args)

    async def create(self, key: str, names: Sequence[str]) -> int:
        """A hash and two members for each."""
        await self.run("create", key, CONTENT, *names)
        return len(names)

    async def claim(self, key: str, limit: int) -> list[Held]:
        """The first of the line."""
        return _held(await self.run("claim", key, limit))

    async def exchange(self, key: str, done: Sequence[Held], failed: Sequence[Held], limit: int) -> list[Held]:
        """Complete, failed ones as well; and claim."""
        names = [name for name, _ in (*done, *failed)]
        if limit:
            return _held(await self.run("exchange", key, limit, *names))
        await self.run("complete", key, *names)
        return []

    async def get(self, key: str, name: str) -> None:
        """The hash."""
        await self.run("get", key, name)

    async def update(self, key: str, name: str) -> None:
        """The hash read, and three fields written."""
        await self.run("update", key, name)

    async def query(self, key: str, kind: str) -> int:  # noqa: ARG002 - all are of one
        """The first of a sorted set with their hashes."""
        return len(await self.run("query", key, PAGE))


def _held(answer: list[Any]) -> list[Held]:
    return [(name.decode(), "") for name in answer[0]]
