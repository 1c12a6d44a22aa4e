"""The figures of a server's processes, told to each other by files: any of them can answer a scrape for all.

Each process has a slot, and writes its figures to the slot's file once a second. One that takes the place of another
goes on from what that had counted, so a counter never falls and there are as many files as slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hookline import figures
from hookline.figures import FAMILIES, Dump
from hookline_server.usage import note_usage

EVERY_S = 1.0
"""Seconds between two writes: how much a scrape that another process answers may miss of this one."""
_STALE_S = 10.0
"""Seconds after which what a process had at the moment, such as requests in flight, is not taken for its present."""
_LASTING = ("counter", "histogram")
_decoder = msgspec.msgpack.Decoder(tuple[float, Dump])


class Peers:
    """The slots' files in a directory that all processes of one server know, and nobody else can write to.

    The slot's former figures are taken over at once, so this comes before anything is counted.
    """

    def __init__(self, directory: Path, slot: int) -> None:
        self._directory = directory
        self.slot = slot
        self._own = directory / f"{slot}.figures"
        for _, dump in self._load(self._own):
            for name, rows in dump.items():
                family = FAMILIES.get(name)
                if family and family.kind in _LASTING:
                    for labels, values in rows:
                        row = family.row(*labels)
                        if len(row) == len(values):
                            row[:] = map(sum, zip(row, values, strict=True))

    async def run(self) -> None:
        """Write until cancelled, and once more then."""
        try:
            while True:
                self.write()
                await asyncio.sleep(EVERY_S)
        finally:
            self.write()

    def write(self) -> None:
        """Tell the others what this process has counted."""
        note_usage(self.slot)
        written = self._own.with_suffix(".new")
        written.write_bytes(msgspec.msgpack.encode((time.time(), figures.dump())))
        written.replace(self._own)

    def read(self) -> Iterator[Dump]:
        """What the others have counted; of one that is gone only what lasts."""
        for path in sorted(self._directory.glob("*.figures")):
            if path == self._own:
                continue
            for written, dump in self._load(path):
                fresh = time.time() - written < _STALE_S
                yield {name: rows for name, rows in dump.items() if fresh or _lasts(name)}

    def _load(self, path: Path) -> Iterator[tuple[float, Dump]]:
        with contextlib.suppress(OSError, msgspec.DecodeError):  # no file yet; or one of another release
            yield _decoder.decode(path.read_bytes())


def _lasts(name: str) -> bool:
    return name in FAMILIES and FAMILIES[name].kind in _LASTING
