"""A store that is spoken to over TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from certificates import certificate
from conftest import wait_until
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.errors import Unavailable
from process import hookline


@dataclass
class Tls:
    """What speaks TLS before the store: its URL, and the file of the authority to trust."""

    url: str
    authority: Path


@pytest_asyncio.fixture(loop_scope="session")
async def tls(store: EmbeddedStore, raw: object, tmp_path: Path) -> AsyncIterator[Tls]:
    links: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stored, storing = await asyncio.open_unix_connection(store.url.removeprefix("unix://"))
        for work in (pass_on(reader, storing), pass_on(stored, writer)):
            task = asyncio.create_task(work)
            links.add(task)
            task.add_done_callback(links.discard)

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=certificate(tmp_path, "localhost")) as server:
        yield Tls(f"rediss://localhost:{server.sockets[0].getsockname()[1]}", tmp_path / "cert")
        await asyncio.gather(*links)  # they end with the links of the engine


async def test_all_goes_over_tls(tls: Tls, tmp_path: Path) -> None:
    settings, url = replace(Settings(), data=tmp_path), f"{tls.url}?ssl_ca_certs={tls.authority}"
    async with Datastore(url, settings, SecretBox(bytes(32))) as datastore:
        large = "x" * 3_000_000
        assert (await datastore.create("jobs", "a", content=large, metadata={"status": "not_started"})).ok
        (a,) = (await datastore.claim("jobs", worker_id="w")).items
        assert a.content == large
        waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
        await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
        await datastore.create("jobs", "b", metadata={"status": "not_started"})
        assert [item.sort_field for item in (await asyncio.wait_for(waiting, 10)).items] == ["b"]


async def test_an_archive_goes_over_tls(tls: Tls, tmp_path: Path) -> None:
    settings, url = replace(Settings(), data=tmp_path), f"{tls.url}?ssl_ca_certs={tls.authority}"
    given = ("--without-api-keys", "--store", url, "--data", str(tmp_path))
    async with Datastore(url, settings, SecretBox(bytes(32))) as datastore:
        made = (await datastore.create("jobs", "a", content="x" * 300_000)).item
        code, said = await hookline("export", *given)
        lines = [line for line in said.splitlines() if line.startswith("{")]
        assert (code, said.splitlines()[-1]) == (0, "exported 1 items of default")
        await datastore.delete("jobs", "a")
        code, said = await hookline("import", "-", *given, stdin="\n".join(lines))
        assert (code, said.splitlines()[-1]) == (0, "read 3 lines: 1 written, 0 there already, 0 failed")
        assert (await datastore.get("jobs", "a")).content == (made and made.content)


async def test_who_shows_an_unknown_certificate_is_not_spoken_to(tls: Tls, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="certificate verify failed"):
        async with Datastore(tls.url, replace(Settings(), data=tmp_path), SecretBox(bytes(32))):
            pass
    code, said = await hookline("doctor", "--store", tls.url, HOOKLINE_DATA=str(tmp_path))
    assert code == 3
    assert said.splitlines()[-1].startswith(
        "  next: name the authority of the store's certificate in its URL: rediss://"
    )
