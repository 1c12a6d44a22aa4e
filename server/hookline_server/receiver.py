"""A webhook receiver on loopback, to see what arrives: for ``hookline listen`` and the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from hookline.clock import format_time
from hookline.errors import HooklineError, Unavailable
from hookline.item import DEPTH_MAX
from hookline_server.progress import tell
from hookline_server.signature import verify
from hookline_server.table import harmless, plain

Take = Callable[[web.Request], Awaitable[web.Response]]
Find = Callable[[], Awaitable[Sequence[bytes]]]
BODY_MAX = 2**28
"""Bytes of a webhook that is taken: as large as an item may be is what its server says, and 1 MiB only by default."""


@dataclass
class Receiver:
    """The webhook's other end: takes a POST on any path, notes it, and answers 204."""

    url: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        """Note one call."""
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            return web.Response(status=400, text="expected JSON")
        async with self._arrived:
            self.calls.append((request.headers.get("X-API-KEY", ""), body))
            self._arrived.notify_all()
        return web.Response(status=204)

    async def wait_for(self, count: int) -> None:
        """Wait until so many calls have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)


@contextlib.asynccontextmanager
async def receiving(port: int = 0, take: Take | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of loopback, 0 for a free one; ``take`` answers in place of :meth:`Receiver.take`.

    Raises:
        Unavailable: the port is taken.
    """
    receiver = Receiver()
    app = web.Application(client_max_size=BODY_MAX)
    app.router.add_post("/{path:.*}", take or receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise Unavailable(f"cannot listen on 127.0.0.1:{port} ({error.strerror}): choose another --port") from error
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/run"
        yield receiver
    finally:
        await runner.cleanup()


async def listen(
    port: int,
    say: Callable[[str], None],
    find: Find,
    *,
    status: int = 204,
    wait: float | None = 0.0,
    as_json: bool = False,
) -> None:
    """Say what arrives and whether it is signed by one of the secrets that ``find`` gives, until cancelled.

    It is asked again by what no secret signed: a server may begin, or rotate its secret, while this listens. Each is
    answered with ``status`` after ``wait`` seconds; None is never. ``as_json`` says each as one document a line.

    Raises:
        Unavailable: the port is taken.
        HooklineError: whatever ``find`` raises at first, but Unavailable.
        OSError: nobody takes what is said any more.
    """
    secrets: Sequence[bytes] = ()
    with contextlib.suppress(Unavailable):  # its server may be about to begin
        secrets = await find()
    asked, asking = time.monotonic(), asyncio.Lock()
    unheard = asyncio.get_running_loop().create_future()

    async def check(headers: Mapping[str, str], raw: bytes) -> str:
        nonlocal secrets, asked
        arrived = time.monotonic()
        if verify(secrets, headers, raw, time.time()):
            return "good"
        async with asking:
            if asked <= arrived:
                asked = time.monotonic()
                try:
                    secrets = await find() or secrets
                except (HooklineError, OSError):
                    return "not checked"
        if not secrets:
            return "not checked"
        return "good" if verify(secrets, headers, raw, time.time()) else "BAD"

    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        signed = await check(headers, raw)
        webhook_id = headers.get("webhook-id", "-")
        shown = {"path": request.path, "webhookId": webhook_id, "signature": signed}
        is_json = True
        try:
            told = _told(shown, raw, as_json=as_json)
        except (ValueError, RecursionError):
            told, is_json = _told(shown, None, as_json=as_json), False
        try:
            say(told)
        except OSError as error:
            if not unheard.done():
                unheard.set_exception(error)
        if not is_json:
            return web.Response(status=400, text="expected JSON")
        await (asyncio.Event().wait() if wait is None else asyncio.sleep(wait))
        return web.Response(status=status)

    async with receiving(port, answer) as receiver:
        (tell if as_json else say)(f"Waiting for webhooks on {receiver.url} (any path); Ctrl-C ends it")
        await unheard


def _check_depth(body: Any) -> None:
    """Refuse what is deeper than any webhook: from Python 3.13 on 20 kB can be, and would be shown as 200 MB of spaces.

    Raises:
        RecursionError: it is.
    """
    level = [body]
    for _ in range(2 * DEPTH_MAX):
        level = [
            member
            for each in level
            if isinstance(each, dict | list)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise RecursionError


def _told(shown: Mapping[str, str], raw: bytes | None, *, as_json: bool) -> str:
    """A webhook as it is shown; without its body where that is None.

    Raises:
        ValueError: its body is no JSON.
        RecursionError: it is nested too deeply.
    """
    body = None if raw is None else json.loads(raw)
    _check_depth(body)
    if as_json:
        at = format_time(round(time.time() * 1000))
        return harmless(json.dumps({"at": at, **shown, "body": body}, ensure_ascii=False))
    path, webhook_id = _word(shown["path"]), _word(shown["webhookId"])
    line = f"{time.strftime('%H:%M:%S')} {path}  webhook-id {webhook_id}  signature {shown['signature']}"
    return line if raw is None else f"{line}\n{harmless(json.dumps(body, indent=2, ensure_ascii=False))}"


def _word(text: str) -> str:
    """Text of whoever posts as one word, so that it cannot be taken for what stands beside it."""
    return plain(text).replace(" ", "\\x20")
