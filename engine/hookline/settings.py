"""Every setting of the engine and the server: one table, with its names, its meaning and its bounds."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from hookline import configuration
from hookline.errors import Flaw, Invalid
from hookline.keys import PARTITIONS_MAX

_ORIGIN = re.compile(r"\*|https?://[^/\s,?#@]+", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,128}", re.ASCII)
_PROXY = re.compile(r"https?://([^\s/?#@]+@)?[^\s/?#@]+(:\d{1,5})?/?", re.ASCII)
LEVELS = ("debug", "info", "warning", "error")
STORE_SCHEMES = ("redis://", "rediss://", "unix://")
_SENTINELS = re.compile(r"rediss?\+sentinel://([^/?#]*@)?[^/?#@]+/[^/?#]+(/\d+)?/?(\?.*)?", re.ASCII)
ROLES = ("api", "relay", "orchestrator")
"""What a process may do: answer HTTP; post webhooks; run stored rules, and see to what is due or has expired."""


def _setting(
    default: Any,
    text: str,
    least: float | None = None,
    most: float | None = None,
    *,
    secret: bool = False,
    flag: str | None = None,
    section: str | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A row of the table.

    Args:
        default: what holds where nothing else is said.
        text: what it means, as help and documentation show it.
        least: the lowest value.
        most: the highest value.
        secret: never shown.
        flag: the option of ``hookline serve``, where it is not called like the setting; ``""``: it has none.
        section: the heading that begins with this row.
        choices: the words that it may be.
    """
    metadata = {
        "help": text,
        "least": least,
        "most": most,
        "secret": secret,
        "flag": flag,
        "section": section,
        "choices": choices,
    }
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Durations are seconds here; elsewhere they may carry a unit (``500ms``, ``10m``)."""

    config: Path | None = _setting(
        None, "TOML file of settings; flags and the environment win over it", section="Process"
    )
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0 picks a free one", 0, 65_535)
    roles: tuple[str, ...] = _setting(
        ROLES,
        f"what to do, of {', '.join(ROLES)}; without api it listens on no port, and each role is to run somewhere",
    )
    probe_port: int | None = _setting(
        None, "port for /livez, /readyz and /metrics alone, where the roles are without api; none: no port", 0, 65_535
    )
    workers: int = _setting(1, "processes that do it, on one port", 1, 256)
    name: str | None = _setting(
        None,
        "what a process is called among all of the store, after a restart too: its relay goes on with what it had"
        " taken; none: host name and port, or roles",
    )
    drain: float = _setting(
        0.0, "how long to go on serving when asked to stop, with /readyz at 503, until load balancers have noticed", 0
    )
    grace: float = _setting(30.0, "longest time that stopping may take, the drain included", 2)
    store_url: str | None = _setting(
        None,
        "redis://, rediss:// or unix:// URL of a store, or of nodes of a cluster, separated by commas;"
        " redis+sentinel:// of its sentinels; none: the embedded one",
        secret=True,
        flag="--store",
        section="Store",
    )
    data: Path = _setting(Path("hookline-data"), "directory of the embedded store and of the secret")
    namespace: str = _setting(
        "default", "the server's own: who shows no API key works in it, and so does what goes straight to the store"
    )
    partitions: int | None = _setting(
        None,
        "partitions of a new namespace, fixed once it has been created; none: as created, and for a new one 16 on a"
        " cluster, else 1",
        1,
        PARTITIONS_MAX,
    )
    call_timeout: float = _setting(5.0, "longest wait for one answer of the store; asked again once after that", 0.01)
    connections: int = _setting(
        16, "connections to each node of the store, at most; as many again hold claims that wait", 1
    )
    tick: float = _setting(
        1.0, "how often due items are promoted, and due retries looked for; rules are run as they become due", 0.01
    )
    secret_key: str | None = _setting(
        None,
        "32 bytes, as hex or base64, that encrypt API keys; none: <data>/secret",
        secret=True,
        flag="",
        section="Access",
    )
    require_keys: bool = _setting(False, "ask for an API key also while none has been made")
    insecure: bool = _setting(
        False, "listen beyond loopback although no API key has been made, so that anybody may do anything"
    )
    hosts: tuple[str, ...] = _setting(
        (),
        "hosts, without ports, by which a server may be asked beside those of loopback as long as no API key has been"
        " made, such as queue.example behind a proxy on this machine; with --insecure: any",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "sites whose pages may use the API in a browser, such as https://app.example; * is all of them"
    )
    body_max: int = _setting(1_048_576, "bytes of a request's body, at most", 1, section="Limits")
    bodies_max: int = _setting(
        268_435_456,
        "bytes of bodies that are in memory at once, in all requests together, two thirds of it at most for one API key"
        " or address; more are refused",
        1,
    )
    head_max: int = _setting(32_768, "bytes of a request's line and headers together, at most", 256)
    target_max: int = _setting(8192, "bytes of a request's path and query, at most", 64)
    headers_max: int = _setting(100, "headers of a request, at most", 1)
    head_timeout: float = _setting(10.0, "longest time that the line and the headers of a request may take", 0.01)
    stall_timeout: float = _setting(
        10.0, "longest time that a body, or the reading of an answer, may fall behind HOOKLINE_TRANSFER_RATE", 0.01
    )
    transfer_rate: int = _setting(1000, "bytes a second in which a client sends a body or reads an answer, at least", 1)
    unread_max: int = _setting(
        268_435_456,
        "bytes of answers that may wait for clients to read them; beyond, those with the most are cut off",
        1,
    )
    keep_alive: float = _setting(75.0, "longest time that a connection is kept open between two requests", 0.01)
    clients_max: int = _setting(10_000, "connections of clients at once", 1)
    clients_per_address: int = _setting(1000, "connections at once from one address, or from one /64 of IPv6", 1)
    requests_max: int = _setting(
        2000,
        "requests under way at once, those that wait included, two thirds of them at most for one API key or address;"
        " more are refused",
        1,
    )
    rate_limit: int = _setting(0, "requests that one caller may make in HOOKLINE_RATE_WINDOW; 0 is no limit", 0)
    rate_window: float = _setting(60.0, "the time in which so many requests may be made", 1)
    idempotency_keep: float = _setting(86_400.0, "how long the answer to an Idempotency-Key is kept", 1)
    outbox_max: int = _setting(
        1_000_000, "webhook events of a partition that may wait; more are refused", 0, section="Webhooks"
    )
    relay_concurrency: int = _setting(64, "webhooks in flight at once", 1)
    lane_concurrency: int = _setting(16, "webhooks in flight at once to one endpoint", 1)
    delivery_timeout: float = _setting(15.0, "total time of one delivery attempt", 0.01)
    delivery_schedule: tuple[float, ...] = _setting(
        (1, 5, 30, 120, 600, 3600, 10_800, 28_800, 86_400),
        "waits between delivery attempts, in order, jittered by 20 %",
    )
    loop_limit: int = _setting(
        120, "webhooks of one item to one URL in a minute; each beyond waits 10 s, for it may be a loop; 0: no limit", 0
    )
    deliveries_keep_completed: float = _setting(86_400.0, "how long a delivery that succeeded is told of", 0)
    deliveries_keep_failed: float = _setting(2_592_000.0, "how long a failed or cancelled delivery is kept", 0)
    egress_allow: tuple[str, ...] = _setting(
        (),
        "networks (CIDR) that webhooks may reach beyond the public ones; and loopback, which a server that listens"
        " there without HOOKLINE_REQUIRE_KEYS may reach by itself",
    )
    egress_proxy: str | None = _setting(
        None,
        "http:// or https:// URL of a forward proxy that webhooks go through: it must refuse private addresses; none:"
        " they go straight",
        secret=True,
    )
    log_format: str = _setting(
        "text", "log lines as text, or as json objects", section="Observation", choices=("text", "json")
    )
    log_level: str = _setting("info", "the lowest level that is logged: debug, info, warning or error", choices=LEVELS)
    log_requests: str = _setting(
        "off", "the level at which each request is logged, such as info; off: not at all", choices=("off", *LEVELS)
    )
    traces: str = _setting(
        "off", "where spans go: off, or otlp (needs hookline[otel]; OTEL_* say the rest)", choices=("off", "otlp")
    )

    def __post_init__(self) -> None:
        flaws = [
            Flaw(f"/{configuration.variable(setting)}", detail)
            for setting in fields(self)
            for detail in _flaws(setting, getattr(self, setting.name))
        ]
        if flaws:
            raise Invalid(*flaws)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
        """Settings from what is given (and not None), else ``HOOKLINE_*``, else the file ``config``, else the defaults.

        Args:
            environ: the environment.
            given: settings by their names; a text is read as that of a flag, and named as one where it is bad.

        Raises:
            Invalid: a value cannot be read as its setting, or the file not at all; every bad one is named.
        """
        values: dict[str, Any] = {}
        flaws: list[Flaw] = []
        for setting, name, raw in configuration.found(fields(cls), environ, given, flaws):
            try:
                value = configuration.read(setting, raw)
            except ValueError as error:
                flaws.append(Flaw(f"/{name}", str(error)))
                continue
            values[setting.name] = value
            flaws += [Flaw(f"/{name}", detail) for detail in _flaws(setting, value)]
        if flaws:
            raise Invalid(*flaws)
        return cls(**values)


def _flaws(setting: Field[Any], value: Any) -> Iterator[str]:
    """What is wrong with the value of a setting; it is not shown, for it may be a secret."""
    least, most, text = (setting.metadata[name] for name in ("least", "most", "help"))
    if setting.name == "store_url" and value is not None and not _are_stores(value):
        schemes = ", ".join(STORE_SCHEMES)
        yield (
            f"expected URLs, separated by commas, that each begin with one of {schemes} (a comma within: %2C); or one"
            " such as redis+sentinel://host:26379,host:26379/mymaster"
        )
    elif setting.name == "egress_allow" and not all(map(_is_network, value)):
        yield "expected networks such as 10.1.0.0/16, separated by commas"
    elif setting.name == "egress_proxy" and value is not None and not _PROXY.fullmatch(value):
        yield "expected the URL of a proxy such as http://proxy.example:3128, without a path"
    elif setting.name == "cors_origins" and not all(map(_ORIGIN.fullmatch, value)):
        yield "expected origins such as https://app.example, separated by commas, or *"
    elif setting.name == "hosts" and not all(map(_HOST.fullmatch, value)):
        yield "expected hosts such as queue.example or [fd00::1], without ports, separated by commas"
    elif setting.name == "roles" and not (value and set(value) <= set(ROLES)):
        yield f"expected one or more of {', '.join(ROLES)}, separated by commas"
    elif setting.name == "name" and value is not None and not _NAME.fullmatch(value):
        yield "expected up to 128 letters, digits and . _ : / @ -"
    elif setting.name == "namespace":
        # Only here: items bring along what a command that just shows its help need not wait for.
        from hookline.item import check_namespace

        try:
            check_namespace(value)
        except Invalid as invalid:
            yield invalid.flaws[0].detail
    elif (choices := setting.metadata["choices"]) and value not in choices:
        yield f"expected {', '.join(choices[:-1])} or {choices[-1]}"
    elif value is not None and ((least is not None and value < least) or (most is not None and value > most)):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        yield f"expected a number {bounds}: {text}"


def _are_stores(text: str) -> bool:
    return all(url.startswith(STORE_SCHEMES) for url in text.split(",")) or bool(_SENTINELS.fullmatch(text))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
