"""One serving process: what it does on a store, from its start to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from hookline import Datastore, SecretBox, Settings
from hookline.collector import collect_rarely
from hookline.errors import HooklineError, Incompatible
from hookline.keyring import Keyring
from hookline.secret import load_key
from hookline.sentinel import SCHEME, Sentinels
from hookline_server.app import PROBES, ROUTES, create_app
from hookline_server.egress import Egress
from hookline_server.gate import Gate
from hookline_server.limits import Limits
from hookline_server.memory import give_back
from hookline_server.namespaces import Namespaces
from hookline_server.orchestrator import Orchestrator
from hookline_server.peers import Peers
from hookline_server.rate import rate_of
from hookline_server.relay import Relay
from hookline_server.shares import Shares
from hookline_server.stop import LAST, Stop, Work, beside
from hookline_server.web import WebServer
from hookline_server.wire import configure

Say = Callable[[str], None]
STORE_PORT = 6379
OTHER_FILES = 2560
"""Files that are open besides the connections of clients: those to the store and to receivers of webhooks, and some."""


@dataclass(frozen=True, slots=True)
class Process:
    """What one process needs to know.

    Args:
        settings: all of them; ``roles`` says what it does.
        store_url: where the store is.
        listener: the socket of the role ``api``, or that for probes alone, bound and listening.
        slot: which one it is among the processes of the same settings.
        peers: the figures of these.
    """

    settings: Settings
    store_url: str
    listener: socket.socket | None
    slot: int = 0
    peers: Peers | None = None

    @property
    def name(self) -> str:
        """What it is called among all processes of the store: when it is started again, the same."""
        port = self.listener.getsockname()[1] if self.listener else "+".join(self.settings.roles)
        name = self.settings.name or f"{socket.gethostname()}:{port}"
        return f"{name}/{self.slot}" if self.settings.workers > 1 else name

    async def run(self, stop: Stop, say: Say, started: Callable[[], None]) -> None:
        """Serve until asked to stop; then unready, the drain, and all that is under way.

        Raises:
            HooklineError: the store cannot be used, or nothing would keep strangers out; the text says what to do.
        """
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            if settings.traces == "otlp":
                await stack.enter_async_context(_exporting(stop))
            secrets = SecretBox(load_key(settings.secret_key, settings.data))
            datastore = Datastore(self.store_url, settings, secrets)
            await datastore.open()
            stack.push_async_callback(stop.close, datastore.close)
            keyring = Keyring(datastore.connection, secrets)
            await keyring.check(claim=True)
            egress = _egress(settings, self.listener, self.store_url)
            stack.push_async_callback(stop.close, egress.close)
            namespaces = Namespaces(datastore, partial(self._work, egress))
            stack.push_async_callback(stop.close, namespaces.close)
            gate = server = None
            if self.listener:
                gate = await _gate(settings, keyring, namespaces, say)
                stack.push_async_callback(stop.close, gate.close)
                server = self._server(datastore, gate, egress, namespaces, stop, started)
            tune(settings)
            work = [*self._work(egress, datastore), namespaces.run(), give_back()]
            work += [part.run() for part in (self.peers, gate) if part]
            serving = [server.serve(sockets=[self.listener])] if server and self.listener else []
            async with beside(stop, *work, *serving) as tasks:
                if not server:
                    started()
                await stop.asked.wait()
                if not any(task.done() for task in tasks):
                    await stop.pause(settings.drain)
                namespaces.release()
                for task in tasks[: len(work)]:
                    task.cancel()
                if server:
                    await server.finish(stop.left)
                await stop.wait(tasks, LAST / 2)
                if stop.hurried.is_set():
                    for task in [*tasks[: len(work)], *(server.server_state.tasks if server else ())]:
                        task.cancel()
                    await asyncio.wait(tasks, timeout=LAST / 2)

    def _work(self, egress: Egress, served: Datastore) -> Iterator[Work]:
        """What the roles do beside the API, for one namespace."""
        settings = self.settings
        if "relay" in settings.roles:
            # A webhook that is cut off is sent once more, so those under way may have the whole time of an attempt.
            grace = max(0.0, min(settings.delivery_timeout, settings.grace - settings.drain - LAST))
            yield Relay(served, egress, consumer=self.name, grace=grace).run()
        if "orchestrator" in settings.roles:
            yield Orchestrator(served).run()

    def _server(
        self,
        datastore: Datastore,
        gate: Gate,
        egress: Egress,
        namespaces: Namespaces,
        stop: Stop,
        started: Callable[[], None],
    ) -> WebServer:
        async def ready() -> Mapping[str, str]:
            return {"process": "stopping"} if stop.asked.is_set() else {}

        app = create_app(
            datastore,
            gate,
            datastores=namespaces.everyone,
            cors_origins=self.settings.cors_origins,
            hosts=None if self.settings.insecure else self.settings.hosts,
            ready=ready,
            rate=rate_of(self.settings),
            requests=Shares(self.settings.requests_max),
            peers=self.peers,
            log_requests=self.settings.log_requests,
            traces=self.settings.traces == "otlp",
            egress=egress,
            routes=ROUTES if "api" in self.settings.roles else PROBES,
        )
        config = configure(app, Limits(self.settings), log_config=None, log_level="warning")
        return WebServer(config, started)


def _exporting(stop: Stop) -> contextlib.AbstractAsyncContextManager[None]:
    try:
        from hookline_server.traces import exporting
    except ImportError as error:
        raise Incompatible("traces need OpenTelemetry: install hookline[otel], or set HOOKLINE_TRACES=off") from error
    return exporting(lambda: stop.last() / 2)


async def _gate(settings: Settings, keyring: Keyring, namespaces: Namespaces, say: Say) -> Gate:
    """The gate; open to everybody as long as no key was made, where only this machine can reach the server.

    Raises:
        HooklineError: others can, and nothing would keep them out.
    """
    unguarded = not settings.require_keys and not await keyring.any_made()
    if unguarded and not (settings.insecure or is_loopback(settings.host)):
        raise HooklineError(
            f"{settings.host} can be reached from other machines, and there is no API key: make one with"
            f" 'hookline keys create{_place(settings)}', or start with --insecure to let anybody do anything"
        )
    if unguarded and not is_loopback(settings.host):
        say("No API key has been made: anybody who can reach this server may do anything")
    return Gate(keyring, namespaces.open, home=settings.namespace, unguarded=unguarded)


def _place(settings: Settings) -> str:
    """The options that lead another command to the same store and secret. No URL is shown that may have a password."""
    url, data = settings.store_url, settings.data
    store = [] if url is None else ["--store", "URL" if "@" in url or "?" in url else shlex.quote(url)]
    where = [] if data == Settings().data else ["--data", shlex.quote(str(data))]
    return "".join(f" {word}" for word in (*store, *where))


def tune(settings: Settings) -> None:
    """Make the process one that serves many."""
    collect_rarely()
    # What reads large bodies beside the loop gives way after 1 ms, not 5: requests wait for it several times each.
    sys.setswitchinterval(0.001)
    # Where threads have less, Python 3.13 runs out of it before it refuses the 10,000th level of a body's JSON.
    threading.stack_size(8 * 2**20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.clients_max + OTHER_FILES
    if soft < wanted and soft != resource.RLIM_INFINITY:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _egress(settings: Settings, listener: socket.socket | None, store_url: str) -> Egress:
    own = [listener.getsockname()[:2]] if listener else []
    return Egress(
        allow=[ipaddress.ip_network(network) for network in settings.egress_allow],
        allow_loopback=_may_reach_loopback(settings),
        proxy=settings.egress_proxy,
        deadline=settings.delivery_timeout,
        forbidden={pair for host, port in [*own, *_stores(store_url)] for pair in _forbidden(host, port)},
    )


def _may_reach_loopback(settings: Settings) -> bool:
    """Whether webhooks may go to this machine: whoever writes triggers is on it, and no tenant behind a proxy."""
    return "api" in settings.roles and is_loopback(settings.host) and not settings.require_keys


def _stores(store_url: str) -> Iterator[tuple[str, int]]:
    """Host and port of each store that is named, or of each sentinel."""
    if urlsplit(store_url).scheme.endswith(SCHEME):
        yield from Sentinels(store_url, 1.0).addresses
        return
    for url in map(urlsplit, store_url.split(",")):
        if url.hostname:
            yield url.hostname, url.port or STORE_PORT


def _forbidden(host: str, port: int) -> Iterator[tuple[str, int]]:
    """What must not be posted to: each address of one of our own hosts; of this machine every loopback address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return  # nobody reaches it by this name either
    for *_, (address, *_) in found:
        yield str(address), port
        if ipaddress.ip_address(address).is_loopback:
            yield "0.0.0.0", port  # noqa: S104 - as a ban


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
