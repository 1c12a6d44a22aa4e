"""Measure how much longer healthy clients wait while a server is attacked: p99 without and with it, in turns.

    python loadtests/attack.py [--slow 500] [--seconds 10] [--turns 3]

The attackers (tests/attackers.py) are slow senders and readers, and beside them heads that are too large, bombs of JSON
and msgpack, and the corpus of ambiguous requests. They run in a process of their own, on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from hookline_bench.job import BODY
from hookline_bench.servers import process
from hookline_bench.usage import resident
from load import Load, drive

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from attackers import attacked, large_items
from rawhttp import dialled

CONNECTIONS = 16
PAUSE = 0.02
"""Seconds between the requests of one healthy client: the server has room for all of them."""
SETTLE = 5.0
"""Seconds from the begin of an attack to the begin of the measurement."""


async def attack(port: int, slow: int) -> None:
    """Attack until standard input ends, then say how connections ended."""
    async with attacked(port, slow) as ends:
        print("attacking", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()))


@asynccontextmanager
async def attackers(port: int, slow: int) -> AsyncIterator[None]:
    """The attackers, as a process."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--attack", str(port), "--slow", str(slow)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    try:
        yield
    finally:
        said, _ = await child.communicate(b"")
        print(f"  connections: {said.decode().strip()}")


def report(name: str, loads: list[Load]) -> float:
    """Print the figures -> p99 in ms, the median of the turns."""
    p50, p99 = (statistics.median(load.percentile(percent) for load in loads) for percent in (50, 99))
    rate = statistics.median(load.rate for load in loads)
    print(f"  {name:<10} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {rate:6,.0f} requests/s   errors", end=" ")
    print(sum(load.errors for load in loads))
    return p99


async def measure(slow: int, seconds: float, turns: int) -> None:
    """Turns without and with the attack, and their ratio."""
    print(f"{CONNECTIONS} healthy clients, {slow} slow ones and the others, {seconds:g} s a turn, {turns} turns")
    with tempfile.TemporaryDirectory() as directory:
        async with process("-m", "hookline_server", "serve", "--port", "0", "--data", f"{directory}/data") as server:
            port = urlsplit(server.url).port
            assert port
            for asked in large_items(1):
                async with dialled(port) as line:
                    await line.send(asked)
                    await line.answer()

            async def healthy() -> Load:
                return await drive(server.url, "/v1/items", BODY, seconds, CONNECTIONS, pause=PAUSE)

            await healthy()
            calm, stormy = [], []
            print(f"  memory {resident(server.pid):.0f} MiB")
            for _ in range(turns):
                calm.append(await healthy())
                async with attackers(port, slow):
                    await asyncio.sleep(SETTLE)
                    stormy.append(await healthy())
                    print(f"  memory {resident(server.pid):.0f} MiB")
            before, during = report("calm", calm), report("attacked", stormy)
            print(f"  p99 attacked / calm = {during / before:.2f}")


def main() -> None:
    """Parse the options and measure, or be the attackers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=500, help="slow clients")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each kind")
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        uvloop.run(attack(options.attack, options.slow))
    else:
        uvloop.run(measure(options.slow, options.seconds, options.turns))


if __name__ == "__main__":
    main()
