"""The page of ``/metrics``: what the processes have counted, and what the store holds, asked at most once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version

from hookline import Datastore, figures
from hookline.figures import Family, Labels, Row
from hookline_server.fresh import Fresh
from hookline_server.peers import Peers
from hookline_server.survey import survey
from hookline_server.usage import note_usage

_BUILD = Family("gauge", "hookline_build_info", "The release that answers; always 1", ("version",))
_PROCESSES = Family("gauge", "hookline_processes", "Processes of this server whose figures are in here")

Served = Callable[[], Awaitable[Sequence[Datastore]]]
"""Finds the datastores of the namespaces served."""
Rows = dict[str, dict[Labels, Row]]


class Metrics:
    """Makes pages. ``datastores`` finds those of the namespaces served, ``peers`` the server's other processes."""

    def __init__(self, datastores: Served, peers: Peers | None = None) -> None:
        self._datastores = datastores
        self._peers = peers
        self._rows = Fresh(self._gather)

    async def page(self, accept: str) -> tuple[bytes, str]:
        """A page in a form that the Accept header takes, and its media type."""
        return await asyncio.to_thread(_write, await self._rows.get(), accept)

    async def _gather(self) -> Rows:
        readings = await survey(await self._datastores())
        note_usage(self._peers.slot if self._peers else 0)
        dumps = [figures.dump(), *(self._peers.read() if self._peers else ())]
        readings += [(_PROCESSES, (), len(dumps)), (_BUILD, (version("hookline"),), 1)]
        rows = figures.total(dumps)
        for family, labels, value in readings:
            rows[family.name][labels] = [value]
        return rows


def _write(rows: Rows, accept: str) -> tuple[bytes, str]:
    from hookline_server.exposition import negotiate

    encode, media_type = negotiate(accept)
    return encode(rows), media_type
