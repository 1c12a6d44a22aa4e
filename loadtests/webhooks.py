"""Webhooks by one relay process: how many, what each costs, how soon they come, and whether bad receivers delay others.

``python loadtests/webhooks.py [--seconds 5] [--kinds 500,hang,...]``. Starts stores, relays and receivers of its own on
loopback. Read its figures as ratios: each is measured beside what it is held against.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import typer
import uvloop

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.collector import collect_rarely
from hookline.secret import load_key
from hookline_bench import servers
from hookline_bench.direct import Direct
from hookline_bench.ground import Ground
from hookline_bench.part import NAMESPACE
from hookline_bench.scenarios import WEBHOOK_BYTES, fill_with
from hookline_bench.servers import Served
from hookline_bench.usage import resident, store_usage
from hookline_bench.webhooks import POSTS, post
from hookline_bench.works import Stage

LATE = 100.0
"""Seconds that the receiver of that kind takes to answer."""
BURST = 6000
"""Events of the full outbox."""
SETTLED = 60.0
"""Seconds within which all events must have come."""
HEAD = b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n"
BOMB = gzip.compress(bytes(20 << 20))
ANSWERS = {
    "": HEAD % b"204 No Content",
    "500": HEAD % b"500 Oops",
    "410": HEAD % b"410 Gone",
    "429": HEAD % b"429 Too Many Requests\r\nretry-after: 2",
    "redirect": HEAD % b"302 Found\r\nlocation: http://169.254.169.254/",
    "bomb": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB,
    "endless": b"HTTP/1.1 200 OK\r\n\r\n",
    "head": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "hang": b"",
}
"""What a receiver of each kind answers; of kind ``tls``, it is called by https and does not speak it."""
KINDS = (*list(ANSWERS)[1:], "100s", "reset", "tls")


@dataclass
class Receiver:
    """Where webhooks arrive: notes when each item's did, and answers as its kind does."""

    kind: str = ""
    url: str = ""
    arrived: dict[str, float] = field(default_factory=dict)

    def take(self, body: bytes, transport: asyncio.WriteTransport) -> None:
        """One webhook."""
        self.arrived.setdefault(body.split(b'"sortField":"', 1)[1].split(b'"', 1)[0].decode(), time.perf_counter())
        if self.kind == "100s":
            asyncio.get_running_loop().call_later(LATE, transport.write, ANSWERS[""])
        elif self.kind == "reset":
            transport.abort()
        else:
            transport.write(ANSWERS[self.kind])
            if self.kind == "endless":
                self._pour(transport)

    def _pour(self, transport: asyncio.WriteTransport) -> None:
        if not transport.is_closing():
            transport.write(b"x" * 16384)
            asyncio.get_running_loop().call_later(0.01, self._pour, transport)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._receiver.kind == "tls":
            self._transport.write(HEAD % b"400 Bad Request")
            self._transport.close()
            return
        self._held += data
        while (end := self._held.find(b"\r\n\r\n") + 4) >= 4:
            length = int(self._held[:end].lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._held) < end + length:
                return
            body, self._held = self._held[end : end + length], self._held[end + length :]
            self._receiver.take(body, self._transport)


@contextlib.asynccontextmanager
async def receiving(kind: str = "") -> AsyncIterator[Receiver]:
    """A receiver in this process."""
    receiver = Receiver(kind)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(receiver), "127.0.0.1", 0, backlog=1024)
    scheme = "https" if kind == "tls" else "http"
    receiver.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/run"
    yield receiver
    server.close()


@contextlib.asynccontextmanager
async def store() -> AsyncIterator[Ground]:
    """A store of its own, with fsync ``always``."""
    with tempfile.TemporaryDirectory(prefix="hookline-webhooks-") as folder:
        data = Path(folder)
        async with (
            EmbeddedStore(data, fsync="always") as embedded,
            Datastore(
                embedded.url, Settings(data=data, namespace=NAMESPACE), SecretBox(load_key(None, data))
            ) as opened,
        ):
            yield Ground(embedded.url, data, opened)


def relaying(ground: Ground) -> contextlib.AbstractAsyncContextManager[Served]:
    """A relay process. It serves the API too, as only a server on loopback may call loopback; nobody asks it."""
    more = ("--lane-concurrency", str(POSTS), "--relay-concurrency", str(2 * POSTS))
    return servers.hookline(ground.url, ground.data, 1, roles="api,relay", more=more)


def calling(datastore: Datastore, url: str) -> Direct:
    """Creates whose items call a URL."""
    return Direct(datastore, {"trigger_urls": [{"url": url, "apiKey": "k", "events": ["created"]}]})


async def all_of(receiver: Receiver, count: int) -> None:
    """Until so many have arrived."""
    async with asyncio.timeout(SETTLED):
        while len(receiver.arrived) < count:
            await asyncio.sleep(0.02)


class Change(NamedTuple):
    """When an item was to be created, and when that was acknowledged, by the clock of :func:`time.perf_counter`."""

    due: float
    made: float


async def changes(datastore: Datastore, receiver: Receiver, key: str, rate: float, seconds: float) -> dict[str, Change]:
    """Create items at a steady rate, whether the ones before are created or not."""
    way, made, tasks = calling(datastore, receiver.url), dict[str, Change](), set[asyncio.Task[None]]()

    async def create(name: str, due: float) -> None:
        await way.create(key, [name])
        made[name] = Change(due, time.perf_counter())

    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        task = asyncio.create_task(create(f"{key}-{number:07d}", due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return made


def percentile(latencies: list[float], percent: float) -> float:
    """In milliseconds."""
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * percent / 100))] * 1000


def shown(latencies: list[float]) -> str:
    """Their middle and their tail."""
    return f"p50 {percentile(latencies, 50):.1f} ms, p99 {percentile(latencies, 99):.1f} ms"


class Seen(NamedTuple):
    """Seconds to each receipt: since its change was asked for, and since it was acknowledged."""

    asked: list[float]
    made: list[float]


async def healthy(datastore: Datastore, receiver: Receiver, key: str, rate: float, seconds: float) -> Seen:
    """Changes at a rate, until all of them have arrived."""
    before = len(receiver.arrived)
    made = await changes(datastore, receiver, key, rate, seconds)
    await all_of(receiver, before + len(made))
    arrived = receiver.arrived
    return Seen(
        [arrived[name] - change.due for name, change in made.items()],
        [arrived[name] - change.made for name, change in made.items()],
    )


async def full_outbox() -> float:
    """A full outbox against the bare loop, then half of that -> webhooks a second."""
    async with store() as ground, receiving() as receiver, servers.receiver() as sink:
        datastore = ground.datastore
        await fill_with(calling(datastore, receiver.url), "burst", BURST)
        before = await store_usage(datastore)
        async with relaying(ground) as relay:
            await all_of(receiver, BURST)
            spent, after = relay.cpu_seconds(), await store_usage(datastore)
            idle = await _spent_by_start(ground)
            times = sorted(receiver.arrived.values())
            rate = len(times) / (times[-1] - times[0])
            began, told = time.perf_counter(), {"bytes": WEBHOOK_BYTES, "posts": BURST, "receiver": f"{sink.url}/run"}
            cpu = time.process_time()
            await post(Stage(Direct(datastore), None, "", clients=POSTS, more=told))
            bare, cpu = BURST / (time.perf_counter() - began), time.process_time() - cpu
            store_us = (after.seconds - before.seconds) / BURST * 1e6
            print(f"full outbox: {rate:,.0f} webhooks/s, bare aiohttp loop {bare:,.0f}: {rate / bare:.2f}")
            print(
                f"processor time of each: relay {(spent - idle) / BURST * 1e6:.0f} us, store {store_us:.0f} us;"
                f" bare loop {cpu / BURST * 1e6:.0f} us"
            )
            for share in (2, 4):
                seen = await healthy(datastore, receiver, f"half{share}", rate / share, 5.0)
                print(f"change to receipt at 1/{share} of that, {rate / share:,.0f}/s: {shown(seen.asked)}", end="")
                print(f"; since its acknowledgement {shown(seen.made)}")
            return rate


async def _spent_by_start(ground: Ground) -> float:
    """Processor seconds of a relay that finds nothing to do."""
    async with relaying(ground) as relay:
        await asyncio.sleep(1.0)
        return relay.cpu_seconds()


async def beside(kind: str, rate: float, seconds: float) -> None:
    """One receiver that is well, beside another one that is, and then beside one that is not."""
    async with (
        store() as ground,
        receiving() as good,
        receiving() as other,
        receiving(kind) as bad,
        relaying(ground) as relay,
    ):
        datastore = ground.datastore
        await healthy(datastore, good, "warm", rate, 1.0)
        seen, memory = list[list[float]](), list[float]()
        for name, beside_it in (("well", other), ("bad", bad)):
            latencies, _ = await asyncio.gather(
                healthy(datastore, good, name, rate, seconds),
                changes(datastore, beside_it, f"{name}-other", rate, seconds),
            )
            seen.append(latencies.asked)
            memory.append(resident(relay.pid))
        p50, p99 = ([percentile(latencies, percent) for latencies in seen] for percent in (50, 99))
        print(
            f"{kind:8} {rate:6,.0f}/s each   p50 {p50[0]:6.1f} -> {p50[1]:6.1f} ms"
            f"   p99 {p99[0]:6.1f} -> {p99[1]:6.1f} ms: {p99[1] / p99[0]:.1f}x"
            f"   memory {memory[0]:.0f} -> {memory[1]:.0f} MiB",
            flush=True,
        )


async def main(seconds: float, rate: float, kinds: list[str]) -> None:
    """All of it."""
    await full_outbox()
    print("\nan endpoint beside another that is well -> beside one that is not:")
    for kind in kinds:
        await beside(kind, rate, seconds)


def run(
    seconds: Annotated[float, typer.Option(help="Of each steady load.")] = 5.0,
    rate: Annotated[float, typer.Option(help="Webhooks a second, to the good receiver and to the bad one.")] = 100.0,
    kinds: Annotated[str, typer.Option(help="Of bad receivers.")] = ",".join(KINDS),
) -> None:
    """Measure webhooks."""
    collect_rarely()  # as the relay does
    uvloop.run(main(seconds, rate, [kind for kind in kinds.split(",") if kind]))


if __name__ == "__main__":
    typer.run(run)
