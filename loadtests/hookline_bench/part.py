"""One load process: it is told a work on a line of standard input, and answers on standard output what came of it.

It says ``ready`` before each, and waits for ``go``, so that all processes begin together.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from hookline import Client, Datastore, SecretBox, Settings
from hookline.collector import collect_rarely
from hookline_bench.bare import Bare
from hookline_bench.direct import Direct
from hookline_bench.histogram import encoded
from hookline_bench.job import Way
from hookline_bench.overhttp import OverHttp
from hookline_bench.webhooks import POSTS, post, relay
from hookline_bench.works import WORKS, Stage, Tally

NAMESPACE = "bench"
CALL_TIMEOUT = 30.0
WORKS_HERE = WORKS | {"post": post, "relay": relay}


@contextlib.asynccontextmanager
async def staged(told: dict[str, Any]) -> AsyncIterator[Stage]:
    """The stage of a work, with what it needs open."""
    stage_of = {name: told[name] for name in ("key", "index", "seconds", "count", "clients", "rate", "more")}
    fields = told["more"].get("fields")
    async with contextlib.AsyncExitStack() as stack:
        source: Datastore | Client | None = None
        way: Way
        if told["way"] == "http":
            sdk = told["work"] in ("worker", "pickup")
            source = await stack.enter_async_context(Client(told["url"])) if sdk else None
            way = await stack.enter_async_context(OverHttp(told["url"], told["clients"], fields))
        else:
            settings = Settings(
                data=Path(told["data"]),
                namespace=NAMESPACE,
                call_timeout=CALL_TIMEOUT,
                lane_concurrency=POSTS,  # as many as the bare loop has
                relay_concurrency=POSTS,
            )
            source = await stack.enter_async_context(Datastore(told["url"], settings, SecretBox(bytes(32))))
            way = Bare(source) if told["way"] == "bare" else Direct(source, fields)
            if isinstance(way, Bare):
                await way.load()
        yield Stage(way, source, **stage_of)


async def perform(told: dict[str, Any], lines: asyncio.StreamReader) -> dict[str, Any]:
    """One work, once the word is given -> what to answer."""
    async with staged(told) as stage:
        gc.collect()
        print("ready", flush=True)
        await lines.readline()
        began, cpu = time.perf_counter(), time.process_time()
        tally: Tally = await WORKS_HERE[told["work"]](stage)
        elapsed, cpu = tally.elapsed or time.perf_counter() - began, time.process_time() - cpu
        answers = stage.way.answers if isinstance(stage.way, OverHttp) else {}
    return {
        "done": tally.done,
        "created": tally.created,
        "finished": tally.finished,
        "elapsed": elapsed,
        "cpu": cpu,
        "latencies": encoded(tally.latencies),
        "answers": answers if told["more"].get("record") else {},
    }


async def main() -> None:
    """Work until standard input ends."""
    collect_rarely()  # as our own processes do, for floors as well
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        try:
            answer = await perform(json.loads(line), lines)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
