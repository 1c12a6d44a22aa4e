"""``hookline serve``: the port, the store, and one process or several on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial

from hookline import EmbeddedStore, Settings
from hookline.errors import Unavailable
from hookline_server import logs
from hookline_server.process import Process, Say
from hookline_server.stop import Stop, beside
from hookline_server.supervisor import Supervisor

SEND_BUFFER = 262_144
"""Bytes of answers that the system may hold for a connection, by its own count; what is more waits with us."""
BACKLOG = 2048
"""Connections that may wait to be accepted: a burst of clients that starts at once."""


async def serve(settings: Settings, say: Say) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly: requests under way first, the store last.

    Raises:
        Incompatible, Unavailable: the store cannot be used; the text says what to do.
    """
    say = partial(_say, say)
    logs.note_loop_errors(asyncio.get_running_loop())
    async with contextlib.AsyncExitStack() as stack:
        port = settings.port if "api" in settings.roles else settings.probe_port
        listener = None if port is None else stack.enter_context(_listen(settings.host, port))
        stop = Stop(settings.grace, partial(say, "Stopping: finishing what is under way"))
        url = settings.store_url
        if url is None:
            store = await stack.enter_async_context(EmbeddedStore(settings.data, say=say))
            url = store.url
            await stack.enter_async_context(beside(stop, store.watch(), then=stop.hurry))
        stop.on_signals()
        process = Process(settings, url, listener)
        runner = Supervisor(process) if settings.workers > 1 else process
        await runner.run(stop, say, partial(_greet, say, settings, listener))


def _say(say: Say, sentence: str) -> None:
    """Say something, if anybody reads it: a server does not depend on that."""
    with contextlib.suppress(OSError):
        say(sentence)


def _greet(say: Say, settings: Settings, listener: socket.socket | None) -> None:
    roles = ", ".join(settings.roles)
    if listener:
        host, port = listener.getsockname()[:2]
        base = f"http://{_bracketed(host)}:{port}"
        say(f"Hookline listens on {base}")
    else:
        base = ""
        say("Hookline runs, and listens on no port")
    say(f"  data    {'in the store that you named' if settings.store_url else settings.data.resolve()}")
    say(f"  runs    {roles}" + (f", in each of {settings.workers} processes" if settings.workers > 1 else ""))
    if "api" in settings.roles:
        body = '{"key": "jobs", "metadata": {"status": "not_started"}}'
        say(f"  try     curl -s {base}/v1/items --json '{body}'")
        say("          and, once there are API keys, -H 'X-API-Key: hl_...'")
    say("  stop    Ctrl-C")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections have it from here. Left to itself the system holds megabytes of an answer for each that nobody reads.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        listener.bind((host, port))
        # From here on requests wait until they are served.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another port with --port or HOOKLINE_PORT"
        ) from error
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
