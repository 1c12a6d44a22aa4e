"""What rewriting the append-only file costs: with the embedded store's thresholds, and with the server's defaults."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline_bench.job import BODY

STEP = 100
DEFAULTS = ["auto-aof-rewrite-min-size 64mb", "auto-aof-rewrite-percentage 100"]
"""Of Redis and Valkey, as their configuration files tell."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Store CPU of a job's whole life, rewriting in child processes included, and how often that was done."""

    name: str
    micros: float
    rewrites: int


async def measure(count: int) -> list[Rewriting]:
    """So many jobs come and go, a hundred at a time."""
    return [await _live(name, config, count) for name, config in (("as chosen", []), ("the server's own", DEFAULTS))]


async def _live(name: str, config: list[str], count: int) -> Rewriting:
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory, "data"), extra_config=config) as store:
            settings = replace(Settings(), data=Path(directory), call_timeout=60.0)
            async with Datastore(store.url, settings, SecretBox(os.urandom(32))) as datastore:
                for start in range(0, count, STEP):
                    await _cycle(datastore, [f"{number:08d}" for number in range(start, start + STEP)])
                cpu = await _info(datastore, "cpu")
                spent = sum(cpu[f"used_cpu_{part}{whose}"] for part in ("user", "sys") for whose in ("", "_children"))
                rewrites = int((await _info(datastore, "persistence"))["aof_rewrites"])
                return Rewriting(name, spent / count * 1e6, rewrites)


async def _cycle(datastore: Datastore, names: list[str]) -> None:
    calls = datastore.calls
    await datastore.run([calls.create("jobs", name, content="x" * 500, metadata=BODY["metadata"]) for name in names])
    items = (await datastore.claim("jobs", worker_id="bench", limit=STEP)).items
    await datastore.settle([calls.complete("jobs", item.sort_field, item.token or "") for item in items])
    await datastore.run([calls.delete("jobs", name) for name in names])


async def _info(datastore: Datastore, section: str) -> dict[str, float]:
    lines = (await datastore.connection.command("INFO", section)).decode().splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name: float(value) for name, _, value in pairs if value.replace(".", "", 1).isdigit()}


def table(found: list[Rewriting]) -> list[str]:
    """As lines of Markdown."""
    lines = ["| thresholds | store CPU a job, us | rewrites |", "|---|---|---|"]
    return lines + [f"| {each.name} | {each.micros:.0f} | {each.rewrites} |" for each in found]
