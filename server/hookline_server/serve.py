"""The server process: store, engine, HTTP, relay and orchestrator under one roof."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.errors import HooklineError, Incompatible, Unavailable
from hookline.keyring import Keyring
from hookline.secret import load_key
from hookline_server import logs
from hookline_server.app import create_app
from hookline_server.egress import Egress
from hookline_server.gate import Gate
from hookline_server.limits import Limits
from hookline_server.namespaces import Namespaces
from hookline_server.orchestrator import Orchestrator
from hookline_server.rate import rate_of
from hookline_server.relay import Relay
from hookline_server.wire import configure

Say = Callable[[str], None]
SEND_BUFFER = 262_144
"""Bytes of answers that the system may hold for a connection, by its own count; what is more waits with us."""
BACKLOG = 2048
"""Connections that may wait to be accepted: a burst of clients that starts at once."""


async def serve(settings: Settings, say: Say) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly: requests under way first, the store last.

    Raises:
        Incompatible, Unavailable: the store cannot be used; the text says what to do.
    """
    logs.note_loop_errors(asyncio.get_running_loop())
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings))
        host, port = listener.getsockname()[:2]
        roles: list[Coroutine[Any, Any, None]] = []
        if settings.traces == "otlp":
            await stack.enter_async_context(_exporting())
        url = settings.store_url
        if url is None:
            store = await stack.enter_async_context(EmbeddedStore(settings.data, say=say))
            url = store.url
            roles.append(store.watch())
        secrets = SecretBox(load_key(settings.secret_key, settings.data))
        datastore = await stack.enter_async_context(Datastore(url, settings, secrets))
        egress = _egress(settings, port)
        stack.push_async_callback(egress.close)
        consumer = f"{socket.gethostname()}:{port}"

        def work(served: Datastore) -> tuple[Coroutine[Any, Any, None], ...]:
            return Relay(served, egress, consumer).run(), Orchestrator(served).run()

        namespaces = await stack.enter_async_context(Namespaces(datastore, work))
        gate = await _gate(settings, Keyring(datastore.connection, secrets), namespaces, say)
        stack.push_async_callback(gate.close)
        server = _Server(
            namespaces.release,
            configure(
                create_app(
                    datastore,
                    gate,
                    datastores=namespaces.at_work,
                    cors_origins=settings.cors_origins,
                    rate=rate_of(settings),
                    log_requests=settings.log_requests,
                    traces=settings.traces == "otlp",
                ),
                Limits(settings),
                log_config=None,
                log_level="warning",
                timeout_graceful_shutdown=10,
            ),
        )
        await stack.enter_async_context(_background(server, *roles, *work(datastore), namespaces.run(), gate.run()))
        _tune(settings)
        _greet(say, settings, f"http://{_bracketed(host)}:{port}")
        await server.serve(sockets=[listener])
        say("Stopping: finishing what is under way")


async def _gate(settings: Settings, keyring: Keyring, namespaces: Namespaces, say: Say) -> Gate:
    """The gate; open to everybody as long as no key was made, where only this machine can reach the server.

    Raises:
        HooklineError: others can, and nothing would keep them out.
    """
    unguarded = not settings.require_keys and not await keyring.any_made()
    if unguarded and not (settings.insecure or _is_loopback(settings.host)):
        raise HooklineError(
            f"{settings.host} can be reached from other machines, and there is no API key: make one with"
            " 'hookline keys create', or start with --insecure to let anybody do anything"
        )
    if unguarded and not _is_loopback(settings.host):
        say("No API key has been made: anybody who can reach this server may do anything")
    return Gate(keyring, namespaces.open, home=settings.namespace, unguarded=unguarded)


OTHER_FILES = 512
"""Files that are open besides the connections of clients: those to the store and to receivers of webhooks, and some."""


def _tune(settings: Settings) -> None:
    """Make the process one that serves many."""
    # Less often, and not what lives as long as the process: 5 to 10 % of a request's time (loadtests).
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    # What reads large bodies beside the loop gives way after 1 ms, not 5: requests wait for it several times each.
    sys.setswitchinterval(0.001)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.clients_max + OTHER_FILES
    if soft < wanted and soft != resource.RLIM_INFINITY:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _greet(say: Say, settings: Settings, base: str) -> None:
    say(f"Hookline listens on {base}")
    say(f"  data    {'in the store that you named' if settings.store_url else settings.data.resolve()}")
    say(f"""  try     curl -s {base}/v1/items --json '{{"key": "jobs", "metadata": {{"status": "not_started"}}}}'""")
    say("  stop    Ctrl-C")


def _exporting() -> AbstractAsyncContextManager[None]:
    try:
        from hookline_server.traces import exporting
    except ImportError as error:
        raise Incompatible("traces need OpenTelemetry: install hookline[otel], or set HOOKLINE_TRACES=off") from error
    return exporting()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections have it from here. Left to itself the system holds megabytes of an answer for each that nobody reads.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    try:
        listener.bind((settings.host, settings.port))
        # From here on requests wait until they are served.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
            "choose another port with --port or HOOKLINE_PORT"
        ) from error
    return listener


def _egress(settings: Settings, port: int) -> Egress:
    return Egress(
        allow=[ipaddress.ip_network(network) for network in settings.egress_allow],
        allow_loopback=_is_loopback(settings.host),
        deadline=settings.delivery_timeout,
        forbidden=[("0.0.0.0", port)],  # noqa: S104 - our own API on every loopback address, as a ban
    )


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the server: then webhooks may reach this machine too."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.asynccontextmanager
async def _background(server: _Server, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the process roles beside the server; one that breaks stops the server, and its error is raised."""
    tasks = [asyncio.create_task(role) for role in work]
    for task in tasks:
        task.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        yield
    finally:
        broken = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in broken:
        task.result()


class _Server(uvicorn.Server):
    """uvicorn's server raises its signals again once it has stopped, which would cut our own stopping short."""

    def __init__(self, release: Callable[[], None], config: uvicorn.Config) -> None:
        super().__init__(config)
        self._release = release

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop)
        # They stay afterwards: a second Ctrl-C must not interrupt the store's shutdown.
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self._release()
