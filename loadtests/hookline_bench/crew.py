"""The load processes, as the one that leads them sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from hookline.errors import HooklineError
from hookline_bench.histogram import merged

LONGEST = 300.0
"""Seconds that one work may take beyond its own."""


@dataclass(frozen=True, slots=True)
class Done:
    """What all processes did together: units, jobs created and finished, seconds, their processor seconds."""

    done: int
    created: int
    finished: int
    elapsed: float
    cpu: float
    latencies: str
    answers: dict[str, tuple[int, str]]

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / self.elapsed


class Crew:
    """So many load processes, which do one work after the other."""

    def __init__(self, children: list[asyncio.subprocess.Process]) -> None:
        self._children = children

    async def perform(self, work: str, processes: int, **told: Any) -> Done:
        """One work by the first so many, which begin together.

        Raises:
            HooklineError: one of them failed.
        """
        told = {"key": "", "seconds": 0.0, "count": 0, "clients": 1, "rate": 0.0, "more": {}, **told, "work": work}
        children = self._children[:processes]
        async with asyncio.timeout(LONGEST + told["seconds"]):
            for index, child in enumerate(children):
                _say(child, json.dumps({**told, "index": index}))
            early = [await _hear(child) for child in children]
            for child, word in zip(children, early, strict=True):
                if word != "ready":
                    raise HooklineError(f"a load process could not begin {work}: {json.loads(word)['error']}")
                _say(child, "go")
            answers = [json.loads(await _hear(child)) for child in children]
        for answer in answers:
            if "error" in answer:
                raise HooklineError(f"a load process could not {work}: {answer['error']}")
        return Done(
            done=sum(answer["done"] for answer in answers),
            created=sum(answer["created"] for answer in answers),
            finished=sum(answer["finished"] for answer in answers),
            elapsed=max(answer["elapsed"] for answer in answers),
            cpu=sum(answer["cpu"] for answer in answers),
            latencies=merged(answer["latencies"] for answer in answers),
            answers={kind: tuple(found) for answer in answers for kind, found in answer["answers"].items()},
        )


@contextlib.asynccontextmanager
async def crew(processes: int) -> AsyncIterator[Crew]:
    """Load processes, which end with the context or with us: their standard input ends."""
    children: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(processes):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hookline_bench.part"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                limit=1 << 26,
            )
            children.append(child)
        yield Crew(children)
    finally:
        for child in children:
            assert child.stdin
            child.stdin.close()
            try:
                await asyncio.wait_for(child.wait(), 5)
            except TimeoutError:
                child.kill()
                await child.wait()


def _say(child: asyncio.subprocess.Process, line: str) -> None:
    assert child.stdin
    child.stdin.write(f"{line}\n".encode())


async def _hear(child: asyncio.subprocess.Process) -> str:
    assert child.stdout
    line = await child.stdout.readline()
    if not line:
        raise HooklineError("a load process has ended; what it printed says why")
    return line.decode().strip()
